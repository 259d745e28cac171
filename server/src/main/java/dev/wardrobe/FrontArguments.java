package dev.wardrobe;

import dev.wardrobe.http.FrontOptions;
import dev.wardrobe.tenant.KeyFileException;
import dev.wardrobe.tenant.Keys;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Whom a server answers. */
final class FrontArguments {
  @Option(
      names = "--host",
      defaultValue = "127.0.0.1",
      description =
          "Address to listen on. Any but the loopback address takes --keys or --tls-client-ca, and"
              + " --tls-cert. Default: ${DEFAULT-VALUE}.")
  private String host = "127.0.0.1";

  @Option(
      names = "--port",
      paramLabel = "N",
      defaultValue = "7070",
      description = "Port to listen on; 0 for any that is free. Default: ${DEFAULT-VALUE}.")
  private int port = 7070;

  @Option(
      names = "--keys",
      paramLabel = "FILE",
      description =
          "Ask every caller for a key, one of this file, which wardrobe keys makes. Read again when"
              + " it changes.")
  private @Nullable Path keys;

  @Option(
      names = "--metrics-without-key",
      description = "With --keys or --tls-client-ca: let /metrics be read by whoever asks.")
  private boolean openMetrics;

  @Option(
      names = "--tls-cert",
      paramLabel = "FILE",
      description =
          "Encrypt, with this certificate and those above it, in PEM form. Read again when it"
              + " changes.")
  private @Nullable Path certificate;

  @Option(names = "--tls-key", paramLabel = "FILE", description = "Its key, PKCS #8 in PEM form.")
  private @Nullable Path key;

  @Option(
      names = "--tls-client-ca",
      paramLabel = "FILE",
      description =
          "Ask every caller for a certificate signed by one of these, in PEM form. With --keys, a"
              + " certificate whose name is in that file is as good as a key; without, it is good"
              + " for everything, and its common name is the tenant.")
  private @Nullable Path clientCa;

  @Option(
      names = "--insecure",
      description =
          "Listen on an address that others can reach without asking who calls, or without"
              + " encryption.")
  private boolean insecure;

  @Option(
      names = "--cors-origin",
      paramLabel = "ORIGIN",
      arity = "1..*",
      description =
          "Pages that may call from a browser, such as https://chat.example. Default: the server's"
              + " own alone.")
  private List<String> origins = new ArrayList<>();

  @Option(
      names = "--allow-host",
      paramLabel = "NAME",
      arity = "1..*",
      description =
          "Without keys: further names that the server may be called by, besides localhost and"
              + " addresses.")
  private List<String> hosts = new ArrayList<>();

  @Option(
      names = "--max-connections",
      paramLabel = "N",
      description = "Most connections at a time. Default: ${DEFAULT-VALUE}.")
  private int maxConnections = FrontOptions.DEFAULT_MAX_CONNECTIONS;

  @Option(
      names = "--request-timeout",
      paramLabel = "SECONDS",
      description =
          "How long a request for an answer or vectors may take, whatever it says itself; 0: as"
              + " long as it takes. Default: ${DEFAULT-VALUE}.")
  private int requestTimeout;

  String host() {
    return host;
  }

  int port() {
    return port;
  }

  /** Whether callers say who they are. */
  boolean asks() {
    return keys != null || clientCa != null;
  }

  /** Null for no limit. */
  @Nullable Duration requestTimeout() {
    return requestTimeout == 0 ? null : Duration.ofSeconds(requestTimeout);
  }

  /**
   * All of it, checked.
   *
   * @throws StartException saying what to do about what is wrong
   */
  FrontOptions read() throws StartException {
    if (port < 0 || port > 65_535) {
      throw StartException.usage("--port: expected 0 to 65535, got " + port);
    }
    if (requestTimeout < 0) {
      throw StartException.usage("--request-timeout: expected 0 or more, got " + requestTimeout);
    }
    if ((certificate == null) != (key == null)) {
      throw StartException.usage(
          "--tls-cert, --tls-key: expected both or neither, got one; give the other too");
    }
    if (clientCa != null && certificate == null) {
      throw StartException.usage(
          "--tls-client-ca: expected --tls-cert and --tls-key with it, got none; certificates are"
              + " shown over encrypted connections alone");
    }
    if (openMetrics && !asks()) {
      throw StartException.usage(
          "--metrics-without-key: expected --keys or --tls-client-ca with it, got none; without"
              + " them nobody is asked for a key anyway");
    }
    try {
      FrontOptions options =
          new FrontOptions(
              keys == null ? null : Keys.open(keys),
              certificate == null || key == null
                  ? null
                  : new FrontOptions.Tls(certificate, key, clientCa),
              insecure,
              openMetrics,
              origins,
              hosts,
              maxConnections);
      var _ = options.check(host);
      return options;
    } catch (IllegalArgumentException e) {
      throw StartException.usage("--" + e.getMessage(), e);
    } catch (KeyFileException e) {
      throw new StartException("--keys: " + e.getMessage(), e);
    }
  }
}
