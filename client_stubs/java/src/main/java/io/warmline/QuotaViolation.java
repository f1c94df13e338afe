package io.warmline;

import java.io.Serializable;

/**
 * A limit that was met.
 *
 * @param subject the limit's name
 * @param description what it is
 * @serial exclude
 */
public record QuotaViolation(String subject, String description) implements Serializable {}
