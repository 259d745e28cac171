package dev.wardrobe.http;

import java.io.Serial;
import org.jspecify.annotations.Nullable;

/** A request over HTTP that cannot be answered because of one of its fields. */
final class FieldException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  private final int status;
  private final @Nullable String parameter;
  private final @Nullable String code;

  private FieldException(
      int status, @Nullable String parameter, @Nullable String code, String message) {
    super(message);
    this.status = status;
    this.parameter = parameter;
    this.code = code;
  }

  /**
   * A field that is not as it has to be.
   *
   * @param problem what was expected, what was got, what to do
   */
  static FieldException of(String field, String problem) {
    return new FieldException(400, field, null, field + ": " + problem);
  }

  /** A body that is not as it has to be. */
  static FieldException body(int status, String message) {
    return new FieldException(status, null, null, message);
  }

  /** A request that failed for a field of it: {@code message} says so by itself. */
  static FieldException about(@Nullable String field, String message) {
    return new FieldException(400, field, null, message);
  }

  /** A prompt that, with its answer, is longer than the context. */
  static FieldException tooLong(String message) {
    return new FieldException(400, null, "context_length_exceeded", message);
  }

  /** A model that is not there. */
  static FieldException noModel(String field, String message) {
    return new FieldException(404, field, "model_not_found", message);
  }

  int status() {
    return status;
  }

  /** The field, or null if it is the body as a whole. */
  @Nullable String parameter() {
    return parameter;
  }

  /** OpenAI's word for the error, or null. */
  @Nullable String code() {
    return code;
  }
}
