package dev.wardrobe.client;

import com.google.protobuf.ByteString;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** A PEFT directory on its way to a server, no faster than the server takes it. */
final class AdapterUpload
    implements ClientResponseObserver<PublishAdapterRequest, PublishAdapterResponse> {
  private static final int PIECE = 1 << 20;

  private final Object lock = new Object();
  private @Nullable ClientCallStreamObserver<PublishAdapterRequest> call;

  // Guarded by the lock.
  private @Nullable PublishAdapterResponse response;
  private @Nullable Throwable failure;
  private boolean over;

  private AdapterUpload() {}

  /**
   * Sends the two files of {@code directory}.
   *
   * @param header without sizes
   * @throws IOException if they cannot be read; then the server keeps nothing
   * @throws StatusRuntimeException if the server refuses
   */
  static PublishAdapterResponse send(
      AdapterServiceGrpc.AdapterServiceStub stub,
      PublishAdapterRequest.Header header,
      Path directory,
      WardrobeClient.UploadProgress progress)
      throws IOException {
    Path config = file(directory, "adapter_config.json");
    Path weights = file(directory, "adapter_model.safetensors");
    AdapterUpload upload = new AdapterUpload();
    long configBytes = Files.size(config);
    long weightsBytes = Files.size(weights);
    var _ = stub.publishAdapter(upload);
    try {
      upload.send(
          PublishAdapterRequest.newBuilder()
              .setHeader(
                  header.toBuilder().setConfigBytes(configBytes).setWeightsBytes(weightsBytes))
              .build());
      upload.send(
          config,
          configBytes,
          piece -> PublishAdapterRequest.newBuilder().setConfig(piece).build(),
          (_, _) -> {});
      upload.send(
          weights,
          weightsBytes,
          piece -> PublishAdapterRequest.newBuilder().setWeights(piece).build(),
          progress);
    } catch (IOException | RuntimeException e) {
      upload.call().cancel("the files could not be read", e);
      throw e;
    }
    return upload.end();
  }

  /** A call without files. */
  static PublishAdapterResponse send(
      AdapterServiceGrpc.AdapterServiceStub stub, PublishAdapterRequest.Header header)
      throws IOException {
    AdapterUpload upload = new AdapterUpload();
    var _ = stub.publishAdapter(upload);
    upload.send(PublishAdapterRequest.newBuilder().setHeader(header).build());
    return upload.end();
  }

  private static Path file(Path directory, String name) throws IOException {
    Path file = directory.resolve(name);
    if (!Files.isRegularFile(file)) {
      throw new NoSuchFileException(
          file
              + ": expected a PEFT directory, with adapter_config.json and"
              + " adapter_model.safetensors; name another, or save the adapter there with PEFT");
    }
    return file;
  }

  private void send(
      Path file,
      long bytes,
      Function<ByteString, PublishAdapterRequest> message,
      WardrobeClient.UploadProgress progress)
      throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      long left = bytes;
      while (left > 0) {
        ByteString piece = ByteString.copyFrom(in.readNBytes((int) Math.min(PIECE, left)));
        if (piece.isEmpty()) {
          throw new IOException(file + " became shorter while it was read; try again");
        }
        left -= piece.size();
        if (!send(message.apply(piece))) {
          return;
        }
        progress.sent(bytes - left, bytes);
      }
    }
  }

  /** Whether the server still listens. */
  private boolean send(PublishAdapterRequest message) throws IOException {
    ClientCallStreamObserver<PublishAdapterRequest> stream = call();
    synchronized (lock) {
      await(stream::isReady);
      if (over) {
        return false;
      }
    }
    stream.onNext(message);
    return true;
  }

  private PublishAdapterResponse end() throws IOException {
    synchronized (lock) {
      if (!over) {
        call().onCompleted();
      }
      await(() -> false);
      if (response != null) {
        return response;
      }
      if (failure instanceof StatusRuntimeException refused) {
        throw refused;
      }
      throw new IOException("the server ended the call without an answer", failure);
    }
  }

  /** Waits until the call is over, or {@code enough}; with the lock held. */
  private void await(BooleanSupplier enough) throws IOException {
    try {
      while (!over && !enough.getAsBoolean()) {
        lock.wait();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException("interrupted");
    }
  }

  private ClientCallStreamObserver<PublishAdapterRequest> call() {
    if (call == null) {
      throw new IllegalStateException("not begun");
    }
    return call;
  }

  private void wake() {
    synchronized (lock) {
      lock.notifyAll();
    }
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<PublishAdapterRequest> stream) {
    call = stream;
    stream.setOnReadyHandler(this::wake);
  }

  @Override
  public void onNext(PublishAdapterResponse answer) {
    synchronized (lock) {
      response = answer;
    }
  }

  @Override
  public void onError(Throwable cause) {
    synchronized (lock) {
      failure = cause;
      over = true;
      lock.notifyAll();
    }
  }

  @Override
  public void onCompleted() {
    synchronized (lock) {
      over = true;
      lock.notifyAll();
    }
  }
}
