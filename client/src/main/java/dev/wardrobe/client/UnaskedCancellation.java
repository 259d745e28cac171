package dev.wardrobe.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * Has a cancellation that nobody asked for be what it is: a server that is gone. A server or a
 * proxy that goes down resets the streams that it carries (RST_STREAM with CANCEL), which gRPC
 * reports as it reports a caller that has lost interest; and those are never asked again.
 */
final class UnaskedCancellation implements ClientInterceptor {
  /**
   * A deadline goes to the server in whole milliseconds where it is long, so the server's may end
   * by so much earlier than ours, and its network's delay later.
   */
  private static final long ROUNDED_MILLIS = 5;

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(
      MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    Context caller = Context.current();
    Deadline deadline = options.getDeadline();
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      private volatile boolean asked;

      @Override
      public void start(Listener<A> listener, Metadata headers) {
        super.start(
            new SimpleForwardingClientCallListener<>(listener) {
              @Override
              public void onClose(Status status, Metadata trailers) {
                if (asked || caller.isCancelled() || !sent(status)) {
                  super.onClose(status, trailers);
                } else {
                  // Details would be those of another code.
                  super.onClose(meant(status, deadline), new Metadata());
                }
              }
            },
            headers);
      }

      @Override
      public void cancel(@Nullable String message, @Nullable Throwable cause) {
        asked = true;
        super.cancel(message, cause);
      }
    };
  }

  /** Whether it came from the other side: what this side makes of its own failures has a cause. */
  private static boolean sent(Status status) {
    return status.getCode() == Status.Code.CANCELLED && status.getCause() == null;
  }

  private static Status meant(Status status, @Nullable Deadline deadline) {
    if (deadline != null && deadline.timeRemaining(TimeUnit.MILLISECONDS) <= ROUNDED_MILLIS) {
      return Status.DEADLINE_EXCEEDED.withDescription("the deadline has passed; allow more time");
    }
    String words = status.getDescription();
    return Status.UNAVAILABLE.withDescription(
        "the server, or a proxy before it, ended the call%s, as when it is stopped; ask again, or another server"
            .formatted(words == null || words.isBlank() ? "" : " (" + words + ")"));
  }
}
