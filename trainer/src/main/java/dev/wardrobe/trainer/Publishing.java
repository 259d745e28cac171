package dev.wardrobe.trainer;

import com.google.protobuf.ByteString;
import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.BlockingClientCall;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Function;
import java.util.logging.Level;
import java.util.logging.Logger;

/** A PEFT directory on its way to a running server's store. */
final class Publishing {
  private static final int PIECE = 1 << 20;

  /** Held on to, so that its level stays. */
  private static final Logger GRPC = Logger.getLogger("io.grpc");

  private Publishing() {}

  /**
   * Publishes under a name, as its next version.
   *
   * @param server {@code HOST:PORT}
   * @return what it is called, {@code NAME@VERSION}
   * @throws IOException if the server cannot be reached or refuses; then it keeps nothing
   */
  static String publish(String server, String name, Path directory) throws IOException {
    GRPC.setLevel(Level.WARNING);
    ManagedChannel channel = NettyChannelBuilder.forTarget(server).usePlaintext().build();
    try {
      BlockingClientCall<PublishAdapterRequest, PublishAdapterResponse> call =
          AdapterServiceGrpc.newBlockingV2Stub(channel).publishAdapter();
      Path config = directory.resolve(Adapter.CONFIG);
      Path weights = directory.resolve(Adapter.WEIGHTS);
      PublishAdapterRequest.Header header =
          PublishAdapterRequest.Header.newBuilder()
              .setName(name)
              .setConfigBytes(Files.size(config))
              .setWeightsBytes(Files.size(weights))
              .build();
      boolean listens = call.write(PublishAdapterRequest.newBuilder().setHeader(header).build());
      listens =
          listens
              && send(call, config, p -> PublishAdapterRequest.newBuilder().setConfig(p).build())
              && send(call, weights, p -> PublishAdapterRequest.newBuilder().setWeights(p).build());
      if (listens) {
        call.halfClose();
      }
      PublishAdapterResponse response = call.read();
      if (response == null) {
        throw new IOException("%s: the server said nothing; see its log".formatted(server));
      }
      return name + "@" + response.getVersion();
    } catch (StatusException e) {
      boolean reached = e.getStatus().getCode() != Status.Code.UNAVAILABLE;
      throw new IOException(
          "--publish: %s %s (%s); the adapter is in %s, for wardrobe adapters publish"
              .formatted(
                  server,
                  reached ? "refused it" : "cannot be reached",
                  e.getStatus().getDescription(),
                  directory),
          e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("--publish: interrupted; the adapter is in " + directory, e);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Sends a file, no faster than the server takes it; false if it no longer listens. */
  private static boolean send(
      BlockingClientCall<PublishAdapterRequest, PublishAdapterResponse> call,
      Path file,
      Function<ByteString, PublishAdapterRequest> message)
      throws IOException, StatusException, InterruptedException {
    try (InputStream in = Files.newInputStream(file)) {
      byte[] piece = in.readNBytes(PIECE);
      while (piece.length > 0) {
        if (!call.write(message.apply(ByteString.copyFrom(piece)))) {
          return false;
        }
        piece = in.readNBytes(PIECE);
      }
    }
    return true;
  }
}
