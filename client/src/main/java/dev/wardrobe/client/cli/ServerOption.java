package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;
import picocli.CommandLine.Spec.Target;

/** Which server to talk to, and as whom. */
final class ServerOption {
  @Spec(Target.MIXEE)
  private CommandSpec spec;

  @Option(
      names = "--server",
      paramLabel = "HOST:PORT",
      split = ",",
      defaultValue = "${env:WARDROBE_SERVER:-127.0.0.1:7070}",
      description = {
        "The server (default: $WARDROBE_SERVER, else 127.0.0.1:7070). Of several,",
        "with commas between, each adapter has one that is asked first."
      })
  private List<String> servers = List.of();

  @Option(
      names = "--api-key",
      paramLabel = "KEY",
      description = "Default: $WARDROBE_API_KEY. Others on this machine may see it here.")
  private @Nullable String key;

  @Option(
      names = "--api-key-file",
      paramLabel = "FILE",
      description = "A file with the API key alone on a line.")
  private @Nullable Path keyFile;

  @Option(names = "--tls", description = "Connect by TLS.")
  private boolean tls;

  @Option(
      names = "--tls-ca",
      paramLabel = "FILE",
      description = "TLS, the server being checked by these authorities (PEM).")
  private @Nullable Path authorities;

  @Option(
      names = "--tls-cert",
      paramLabel = "FILE",
      description = "TLS, and our own certificate (PEM); with --tls-key.")
  private @Nullable Path certificate;

  @Option(names = "--tls-key", paramLabel = "FILE", description = "Its key (PKCS #8, PEM).")
  private @Nullable Path certificateKey;

  @Option(
      names = "--timeout",
      paramLabel = "SECONDS",
      description = "Longest that a call may take. Default: as long as it takes.")
  private @Nullable Double timeout;

  @Option(
      names = "--attempts",
      paramLabel = "N",
      defaultValue = "3",
      description =
          "Most attempts at a call that can be repeated, where none answers or the queue is full."
              + " Default: 3.")
  private int attempts = 3;

  /** The first server. */
  String target() {
    return servers.getFirst();
  }

  WardrobeClient connect() throws IOException {
    try {
      return builder().build();
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), String.valueOf(e.getMessage()), e);
    }
  }

  /** How to connect, for connections of other kinds. */
  WardrobeClient.Builder builder() throws IOException {
    try {
      WardrobeClient.Builder builder =
          WardrobeClient.builder(servers.toArray(String[]::new))
              .attempts(attempts, Duration.ofSeconds(30))
              .onFailover(event -> spec.commandLine().getErr().println("wardrobe: " + event));
      if (key != null) {
        builder.apiKey(key);
      } else if (keyFile != null) {
        builder.apiKeyFile(keyFile);
      }
      if (tls) {
        builder.tls();
      }
      if (authorities != null) {
        builder.tls(authorities);
      }
      if ((certificate == null) != (certificateKey == null)) {
        throw new IllegalArgumentException("--tls-cert and --tls-key: expected both, got one");
      }
      if (certificate != null && certificateKey != null) {
        builder.tlsCertificate(certificate, certificateKey);
      }
      if (timeout != null) {
        if (!(timeout > 0 && timeout < 1e9)) {
          throw new IllegalArgumentException("--timeout: expected seconds above 0, got " + timeout);
        }
        builder.deadline(Duration.ofNanos((long) (timeout * 1e9)));
      }
      return builder;
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), String.valueOf(e.getMessage()), e);
    }
  }
}
