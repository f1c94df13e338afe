package io.warmline.runner;

/** A step did not go as expected. */
final class StepException extends RuntimeException {
  StepException(String message) {
    super(message);
  }
}
