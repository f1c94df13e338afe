package io.warmline;

import java.io.Serializable;

/**
 * A field of the request that has a value which is not allowed.
 *
 * @param field its path
 * @param description what is wrong with it
 * @serial exclude
 */
public record FieldViolation(String field, String description) implements Serializable {}
