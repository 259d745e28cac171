package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class PublishingTest {
  @TempDir private Path folder;

  private final List<PublishAdapterRequest> seen = new ArrayList<>();
  private Server server;

  /** Takes in what it is sent, and refuses one name. */
  private final class Taking extends AdapterServiceGrpc.AdapterServiceImplBase {
    @Override
    public StreamObserver<PublishAdapterRequest> publishAdapter(
        StreamObserver<PublishAdapterResponse> responses) {
      return new StreamObserver<>() {
        private boolean refused;

        @Override
        public void onNext(PublishAdapterRequest request) {
          seen.add(request);
          if (request.getHeader().getName().equals("refused")) {
            refused = true;
            responses.onError(
                Status.INVALID_ARGUMENT.withDescription("no such name").asException());
          }
        }

        @Override
        public void onError(Throwable failure) {}

        @Override
        public void onCompleted() {
          if (!refused) {
            responses.onNext(PublishAdapterResponse.newBuilder().setVersion("7").build());
            responses.onCompleted();
          }
        }
      };
    }
  }

  @BeforeEach
  void serve() throws IOException {
    server = NettyServerBuilder.forPort(0).addService(new Taking()).build().start();
    byte[] weights = new byte[2_500_000];
    new Random(1).nextBytes(weights);
    Files.write(folder.resolve(Adapter.WEIGHTS), weights);
    Files.writeString(folder.resolve(Adapter.CONFIG), "{}");
  }

  @AfterEach
  void stop() {
    server.shutdownNow();
  }

  private String target() {
    return "127.0.0.1:" + server.getPort();
  }

  @Test
  void publish_sendsBothFiles() throws IOException {
    assertThat(Publishing.publish(target(), "rule", folder)).isEqualTo("rule@7");
    PublishAdapterRequest.Header header = seen.getFirst().getHeader();
    assertThat(header.getName()).isEqualTo("rule");
    assertThat(header.getConfigBytes()).isEqualTo(2);
    assertThat(header.getWeightsBytes()).isEqualTo(2_500_000);
    assertThat(seen.get(1).getConfig().toStringUtf8()).isEqualTo("{}");
    ByteArrayOutputStream weights = new ByteArrayOutputStream();
    for (PublishAdapterRequest piece : seen.subList(2, seen.size())) {
      piece.getWeights().writeTo(weights);
    }
    assertThat(folder.resolve(Adapter.WEIGHTS)).hasBinaryContent(weights.toByteArray());
  }

  @Test
  void publish_refused_isSaid() {
    assertThatThrownBy(() -> Publishing.publish(target(), "refused", folder))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("refused it (no such name)");
  }

  @Test
  void publish_toNobody_isSaid() {
    String target = target();
    server.shutdownNow();
    assertThatThrownBy(() -> Publishing.publish(target, "rule", folder))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("cannot be reached")
        .hasMessageContaining("the adapter is in");
  }
}
