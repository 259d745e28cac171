package dev.wardrobe.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Who we say that we are; never printed. */
final class ApiKey implements ClientInterceptor {
  private static final Metadata.Key<String> HEADER =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  /** Longest file that is read for a key, in bytes. */
  private static final long LONGEST = 16 << 10;

  private final String key;

  /**
   * A key.
   *
   * @throws IllegalArgumentException if it cannot be one; the message does not repeat it
   */
  ApiKey(String key) {
    if (key.isEmpty() || !key.chars().allMatch(c -> c > ' ' && c <= '~')) {
      throw new IllegalArgumentException(
          "API key: expected printable ASCII without spaces, got %s; copy it again"
              .formatted(key.isEmpty() ? "nothing" : "something else"));
    }
    this.key = key;
  }

  /**
   * The key that a file holds, alone on a line.
   *
   * @throws IOException if it cannot be read
   */
  static ApiKey read(Path file) throws IOException {
    if (Files.size(file) > LONGEST) {
      throw new IOException(
          "%s: expected an API key alone on a line, got %d bytes; name the key's file"
              .formatted(file, Files.size(file)));
    }
    return new ApiKey(Files.readString(file).strip());
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(
      MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        headers.put(HEADER, "Bearer " + key);
        super.start(listener, headers);
      }
    };
  }

  @Override
  public String toString() {
    return "ApiKey[hidden]";
  }
}
