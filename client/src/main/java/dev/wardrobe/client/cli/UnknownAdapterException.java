package dev.wardrobe.client.cli;

/** A name that no adapter has, and one that may have been meant. */
final class UnknownAdapterException extends Exception {
  private static final long serialVersionUID = 1L;

  private final transient Failure failure;

  UnknownAdapterException(Failure failure, Throwable cause) {
    super(failure.message(), cause);
    this.failure = failure;
  }

  Failure failure() {
    return failure;
  }
}
