package dev.wardrobe.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Why a call failed, as far as the server said.
 *
 * @param code gRPC's
 * @param message what was expected, what was got, what to do; never null
 * @param retryAfter how long to wait before asking again ({@code google.rpc.RetryInfo}); null if
 *     the server did not say
 * @param answered whether a server said so, rather than this side for want of one
 * @param details all that the server attached, {@code google.rpc} messages as a rule
 */
public record CallError(
    Status.Code code,
    String message,
    @Nullable Duration retryAfter,
    boolean answered,
    List<Any> details) {
  public CallError {
    details = List.copyOf(details);
  }

  /** Of any failure of a call; null for what does not come from gRPC. */
  public static @Nullable CallError of(Throwable failure) {
    for (Throwable t = failure; t != null; t = t.getCause()) {
      if (t instanceof StatusRuntimeException || t instanceof StatusException) {
        return read(t);
      }
    }
    return null;
  }

  private static CallError read(Throwable failure) {
    Status status = Status.fromThrowable(failure);
    com.google.rpc.Status attached = StatusProto.fromThrowable(failure);
    List<Any> details = attached == null ? List.of() : attached.getDetailsList();
    Duration after = null;
    for (Any detail : details) {
      if (detail.is(RetryInfo.class)) {
        try {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          after = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        } catch (InvalidProtocolBufferException e) {
          // A hint that cannot be read is none.
        }
      }
    }
    String description = status.getDescription();
    if (status.getCode() == Status.Code.UNAVAILABLE && status.getCause() != null) {
      // gRPC's own words are "io exception".
      String cause = status.getCause().getMessage();
      description = cause == null ? description : cause;
    }
    return new CallError(
        status.getCode(),
        description == null ? status.getCode().toString() : description,
        after == null || after.isNegative() ? null : after,
        // A server that answers sends no exception.
        status.getCause() == null,
        details);
  }
}
