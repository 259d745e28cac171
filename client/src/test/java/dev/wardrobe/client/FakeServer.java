package dev.wardrobe.client;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.RollbackAliasRequest;
import dev.wardrobe.v1.RollbackAliasResponse;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/** A server whose failures are chosen. */
final class FakeServer implements AutoCloseable {
  /** What the next calls fail with, in order; then they succeed. */
  final Deque<Throwable> failures = new ArrayDeque<>();

  /** Adapters of the calls that came, failed ones included. */
  final List<String> asked = new CopyOnWriteArrayList<>();

  final List<String> keys = new CopyOnWriteArrayList<>();
  final CountDownLatch cancelled = new CountDownLatch(1);

  /** A call to {@code generate} that is left without an answer has come. */
  final CountDownLatch held = new CountDownLatch(1);

  /** Whether calls to {@code generate} are left without an answer. */
  volatile boolean holding;

  private final Server server;
  private final String target;

  FakeServer() throws IOException {
    this(InsecureServerCredentials.create());
  }

  FakeServer(ServerCredentials credentials) throws IOException {
    server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0), credentials)
            .addService(new Generation())
            .addService(new Adapters())
            .intercept(new Keys())
            .build()
            .start();
    target = "127.0.0.1:" + server.getPort();
  }

  String target() {
    return target;
  }

  static Throwable busy(int millis) {
    return StatusProto.toStatusRuntimeException(
        Status.newBuilder()
            .setCode(Code.RESOURCE_EXHAUSTED_VALUE)
            .setMessage("the queue is full")
            .addDetails(
                Any.pack(
                    RetryInfo.newBuilder()
                        .setRetryDelay(Duration.newBuilder().setNanos(millis * 1_000_000))
                        .build()))
            .build());
  }

  static Throwable unavailable() {
    return io.grpc.Status.UNAVAILABLE.withDescription("stopping").asRuntimeException();
  }

  private synchronized @Nullable Throwable failure(String adapter) {
    asked.add(adapter);
    return failures.poll();
  }

  /**
   * Ends it at once and waits for that, so that no call meets it half gone; closing it again does
   * no harm.
   */
  void stop() {
    server.shutdownNow();
    try {
      if (!server.awaitTermination(30, TimeUnit.SECONDS)) {
        throw new IllegalStateException(target + " does not end");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  @Override
  public void close() {
    stop();
  }

  private final class Keys implements ServerInterceptor {
    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
      String key = headers.get(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER));
      keys.add(String.valueOf(key));
      return next.startCall(call, headers);
    }
  }

  private final class Generation extends GenerationServiceGrpc.GenerationServiceImplBase {
    @Override
    public void generate(GenerateRequest request, StreamObserver<GenerateResponse> to) {
      Throwable failure = failure(request.getAdapter());
      if (failure != null) {
        to.onError(failure);
        return;
      }
      if (holding) {
        held.countDown();
        return;
      }
      to.onNext(GenerateResponse.newBuilder().setText("whole").build());
      to.onCompleted();
    }

    @Override
    public void generateStream(GenerateRequest request, StreamObserver<GenerateEvent> to) {
      Throwable failure = failure(request.getAdapter());
      if (failure != null) {
        to.onError(failure);
        return;
      }
      GenerateEvent event =
          GenerateEvent.newBuilder()
              .setDelta(GenerateEvent.Delta.newBuilder().setText("piece"))
              .build();
      if (request.getPrompt().equals("endless")) {
        ((ServerCallStreamObserver<GenerateEvent>) to).setOnCancelHandler(cancelled::countDown);
        to.onNext(event);
        return;
      }
      to.onNext(event);
      if (request.getPrompt().equals("torn")) {
        to.onError(unavailable());
        return;
      }
      to.onCompleted();
    }
  }

  private final class Adapters extends AdapterServiceGrpc.AdapterServiceImplBase {
    @Override
    public void rollbackAlias(
        RollbackAliasRequest request, StreamObserver<RollbackAliasResponse> to) {
      Throwable failure = failure(request.getName());
      if (failure != null) {
        to.onError(failure);
        return;
      }
      to.onNext(RollbackAliasResponse.getDefaultInstance());
      to.onCompleted();
    }

    @Override
    public StreamObserver<PublishAdapterRequest> publishAdapter(
        StreamObserver<PublishAdapterResponse> to) {
      return new StreamObserver<>() {
        private long bytes;
        private String name = "";

        @Override
        public void onNext(PublishAdapterRequest request) {
          bytes += request.getWeights().size();
          name = request.hasHeader() ? request.getHeader().getName() : name;
        }

        @Override
        public void onError(Throwable failure) {}

        @Override
        public void onCompleted() {
          Throwable failure = failure(name);
          if (failure != null) {
            to.onError(failure);
            return;
          }
          to.onNext(
              PublishAdapterResponse.newBuilder()
                  .setAdapter(Adapter.newBuilder().setBytes(bytes))
                  .build());
          to.onCompleted();
        }
      };
    }
  }
}
