package dev.wardrobe.grpc;

import com.google.protobuf.Any;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.serve.RequestException;
import io.vertx.grpc.common.GrpcStatus;
import java.time.Duration;
import java.util.Base64;
import java.util.concurrent.CompletionException;
import java.util.concurrent.RejectedExecutionException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** From exceptions to gRPC's statuses, in one place. */
final class Errors {
  private static final Logger log = LoggerFactory.getLogger(Errors.class);

  /** The trailer for {@link #details}, as gRPC's libraries know it. */
  static final String DETAILS = "grpc-status-details-bin";

  private Errors() {}

  static GrpcStatus status(Throwable failure) {
    return switch (failure) {
      case CompletionException e when e.getCause() != null -> status(e.getCause());
      case RequestException e -> GrpcStatus.valueOf(e.code().name());
      case AdapterException e ->
          switch (e.reason()) {
            case INVALID -> GrpcStatus.INVALID_ARGUMENT;
            case MISMATCH, IN_USE, NOT_SET_UP -> GrpcStatus.FAILED_PRECONDITION;
            case OUTDATED -> GrpcStatus.OUT_OF_RANGE;
            case CUT_OFF -> GrpcStatus.ABORTED;
            case NOT_FOUND -> GrpcStatus.NOT_FOUND;
            case EXISTS -> GrpcStatus.ALREADY_EXISTS;
            case REFUSED_PATH -> GrpcStatus.PERMISSION_DENIED;
            case TOO_LARGE -> GrpcStatus.RESOURCE_EXHAUSTED;
            case DAMAGED -> GrpcStatus.DATA_LOSS;
            case IO -> GrpcStatus.UNAVAILABLE;
          };
      case OutOfMemoryException e -> GrpcStatus.RESOURCE_EXHAUSTED;
      // Threads take nothing any more.
      case RejectedExecutionException e -> GrpcStatus.UNAVAILABLE;
      default -> GrpcStatus.INTERNAL;
    };
  }

  /** When to try again; null if there is nothing to say. */
  static @Nullable Duration retryAfter(Throwable failure) {
    return switch (failure) {
      case CompletionException e when e.getCause() != null -> retryAfter(e.getCause());
      case RequestException e -> e.retryAfter();
      default -> null;
    };
  }

  /**
   * A {@code google.rpc.Status} that says when to try again, as the trailer {@link #DETAILS} wants
   * it.
   */
  static String details(GrpcStatus code, String message, Duration after) {
    RetryInfo retry =
        RetryInfo.newBuilder()
            .setRetryDelay(
                com.google.protobuf.Duration.newBuilder()
                    .setSeconds(after.getSeconds())
                    .setNanos(after.getNano()))
            .build();
    Status status =
        Status.newBuilder()
            .setCode(code.code)
            .setMessage(sendable(message))
            .addDetails(Any.pack(retry))
            .build();
    return Base64.getEncoder().withoutPadding().encodeToString(status.toByteArray());
  }

  /**
   * Most bytes of a message as it is sent, percent-encoded: gRPC's clients take no more than 8 KiB
   * of headers, in which details repeat it, and would report that instead.
   */
  private static final int LONGEST = 3000;

  /** A message, cut short if it is too long to be sent: some quote what the caller wrote. */
  static String sendable(String message) {
    int bytes = 0;
    for (int i = 0; i < message.length(); ) {
      int c = message.codePointAt(i);
      boolean plain = c >= ' ' && c <= '~' && c != '%';
      bytes += plain ? 1 : c < 0x80 ? 3 : c < 0x800 ? 6 : c < 0x10000 ? 9 : 12;
      if (bytes > LONGEST) {
        return message.substring(0, i) + "…";
      }
      i += Character.charCount(c);
    }
    return message;
  }

  /** What the caller is told; what only we can mend goes to the log as well. */
  static String message(Throwable failure) {
    if (failure instanceof CompletionException e && e.getCause() != null) {
      return message(e.getCause());
    }
    if (status(failure) == GrpcStatus.INTERNAL) {
      log.error("a call failed", failure);
      if (!(failure instanceof RequestException)) {
        // It was not written for callers, and may tell them what is not theirs to know.
        return "the server failed; its log says why";
      }
    }
    if (failure instanceof RejectedExecutionException) {
      return "the server is stopping; ask again once it is up";
    }
    String message = failure.getMessage();
    return message == null ? failure.toString() : message;
  }
}
