package dev.wardrobe.client.load;

import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.ListStepsRequest;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.StepRecord;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * Connections to one server that cost little: answers are taken on the transport's own threads, as
 * they come.
 */
public final class Connection implements AutoCloseable {
  private static final int MAX_MESSAGE_BYTES = 64 << 20;
  private static final long CLOSE_SECONDS = 5;

  private final List<ManagedChannel> channels = new ArrayList<>();

  /**
   * Connects without TLS.
   *
   * @param target {@code host:port}
   * @param count of connections, between which the streams are divided
   */
  public Connection(String target, int count) {
    this(WardrobeClient.builder(target), target, count);
  }

  /**
   * Connects.
   *
   * @param how with what TLS and key
   * @param target {@code host:port}
   * @param count of connections, between which the streams are divided
   */
  public Connection(WardrobeClient.Builder how, String target, int count) {
    for (int i = 0; i < count; i++) {
      channels.add(
          how.channel(target).directExecutor().maxInboundMessageSize(MAX_MESSAGE_BYTES).build());
    }
  }

  public ModelInfoResponse modelInfo() {
    return GenerationServiceGrpc.newBlockingStub(channels.getFirst())
        .modelInfo(ModelInfoRequest.getDefaultInstance());
  }

  /** The steps after number {@code after} that the server still remembers. */
  List<StepRecord> steps(long after) {
    return GenerationServiceGrpc.newBlockingStub(channels.getFirst())
        .listSteps(ListStepsRequest.newBuilder().setAfter(after).build())
        .getStepsList();
  }

  /** For calls that need no more than that they go through. */
  ManagedChannel channel() {
    return channels.getFirst();
  }

  /** Calls that wait for their answer. */
  AdapterServiceGrpc.AdapterServiceBlockingStub adapters() {
    return AdapterServiceGrpc.newBlockingStub(channels.getFirst());
  }

  /** What happens to an answer; called on a thread of the transport, which must not wait. */
  interface Listener {
    void event(GenerateEvent event);

    void end(Status status);
  }

  /** An answer on its way. */
  static final class Answer {
    private final ClientCall<GenerateRequest, GenerateEvent> call;

    private Answer(ClientCall<GenerateRequest, GenerateEvent> call) {
      this.call = call;
    }

    void cancel() {
      call.cancel("the measurement is over", null);
    }
  }

  /**
   * Asks for an answer, and returns at once.
   *
   * @param stream which connection takes it
   * @param deadlineMillis 0 for none
   */
  Answer start(GenerateRequest request, int stream, long deadlineMillis, Listener listener) {
    CallOptions options =
        deadlineMillis <= 0
            ? CallOptions.DEFAULT
            : CallOptions.DEFAULT.withDeadlineAfter(deadlineMillis, TimeUnit.MILLISECONDS);
    ClientCall<GenerateRequest, GenerateEvent> call =
        channels
            .get(Math.floorMod(stream, channels.size()))
            .newCall(GenerationServiceGrpc.getGenerateStreamMethod(), options);
    call.start(
        new ClientCall.Listener<GenerateEvent>() {
          @Override
          public void onMessage(GenerateEvent event) {
            listener.event(event);
          }

          @Override
          public void onClose(Status status, @Nullable Metadata trailers) {
            listener.end(status);
          }
        },
        new Metadata());
    // Whatever comes: nothing here is slower than the server.
    call.request(Integer.MAX_VALUE);
    call.sendMessage(request);
    call.halfClose();
    return new Answer(call);
  }

  @Override
  public void close() {
    channels.forEach(ManagedChannel::shutdownNow);
    try {
      for (ManagedChannel channel : channels) {
        boolean _ = channel.awaitTermination(CLOSE_SECONDS, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
