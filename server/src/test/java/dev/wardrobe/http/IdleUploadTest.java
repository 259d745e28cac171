package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import com.google.protobuf.ByteString;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.StreamObserver;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Uploads that fall silent. Nothing of them is ever read as an adapter, so there is no model. */
@Timeout(60)
final class IdleUploadTest {
  @TempDir private Path folder;

  private static final class Answer implements StreamObserver<PublishAdapterResponse> {
    final CompletableFuture<Status> ended = new CompletableFuture<>();

    @Override
    public void onNext(PublishAdapterResponse response) {
      ended.complete(Status.OK);
    }

    @Override
    public void onError(Throwable failure) {
      ended.complete(Status.fromThrowable(failure));
    }

    @Override
    public void onCompleted() {}
  }

  private long staged() throws Exception {
    try (Stream<Path> files = Files.list(folder.resolve("store/.staging"))) {
      return files.count();
    }
  }

  @Test
  void silence_breaksTheUploadOff_andLeavesNothing() throws Exception {
    ExecutorService workers = Executors.newFixedThreadPool(2);
    try (AdapterStore store = AdapterStore.open(folder.resolve("store"), StoreOptions.DEFAULT);
        AdapterRegistry adapters =
            new AdapterRegistry(null, null, List.of(), store, AdapterOptions.DEFAULT, workers);
        HttpFrontend frontend =
            new HttpFrontend(
                new Served(
                    null,
                    null,
                    adapters,
                    null,
                    workers,
                    ModelInfoResponse::getDefaultInstance,
                    new Telemetry("", null, adapters, ModelInfoResponse::getDefaultInstance)),
                List.of(),
                FrontOptions.DEFAULT,
                new Patience(
                    Duration.ofSeconds(30),
                    Duration.ofSeconds(75),
                    Duration.ofSeconds(30),
                    Duration.ofSeconds(1)))) {
      ManagedChannel channel =
          NettyChannelBuilder.forAddress("127.0.0.1", frontend.listen("127.0.0.1", 0))
              .usePlaintext()
              .build();
      try {
        AdapterServiceGrpc.AdapterServiceStub stub = AdapterServiceGrpc.newStub(channel);
        Answer begun = new Answer();
        StreamObserver<PublishAdapterRequest> sending = stub.publishAdapter(begun);
        sending.onNext(
            PublishAdapterRequest.newBuilder()
                .setHeader(
                    PublishAdapterRequest.Header.newBuilder()
                        .setName("silent")
                        .setConfigBytes(100)
                        .setWeightsBytes(100))
                .build());
        sending.onNext(
            PublishAdapterRequest.newBuilder().setConfig(ByteString.copyFromUtf8("{")).build());
        Answer empty = new Answer();
        var _ = stub.publishAdapter(empty);
        for (Answer each : List.of(begun, empty)) {
          Status status = each.ended.get(50, TimeUnit.SECONDS);
          assertThat(status.getCode()).isEqualTo(Status.Code.ABORTED);
          assertThat(status.getDescription()).contains("within 1 s", "publish it again");
        }
        await().until(() -> staged() == 0);
        assertThat(adapters.page(null, 10).entries()).isEmpty();
      } finally {
        channel.shutdownNow();
        assertThat(channel.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
      }
    } finally {
      workers.shutdown();
      assertThat(workers.awaitTermination(10, TimeUnit.SECONDS)).isTrue();
    }
  }
}
