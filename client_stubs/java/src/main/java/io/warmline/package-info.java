/**
 * A client for a Warmline server, which keeps an agent's line to its model warm.
 *
 * <p>{@link io.warmline.Client} is a connection, {@link io.warmline.Session} a conversation's session, {@link io.warmline.Turn} one
 * streamed call; {@link io.warmline.WarmlineException} has one class per thing you would do about a failure. The
 * contract's messages and stubs are in {@code io.warmline.v1}.
 */
package io.warmline;
