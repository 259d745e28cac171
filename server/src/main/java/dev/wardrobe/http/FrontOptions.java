package dev.wardrobe.http;

import dev.wardrobe.tenant.Keys;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Whom the port answers, and how much it takes.
 *
 * @param keys one of which a caller has to show; null: none
 * @param tls how connections are encrypted; null: not at all
 * @param insecure whether to listen to a network without asking who calls, or without encryption
 * @param openMetrics whether /metrics asks for no key
 * @param origins whose pages may call from a browser, such as {@code https://chat.example}
 * @param hosts further names to be called by, where only some are taken
 * @param maxConnections most connections at a time
 */
public record FrontOptions(
    @Nullable Keys keys,
    @Nullable Tls tls,
    boolean insecure,
    boolean openMetrics,
    List<String> origins,
    List<String> hosts,
    int maxConnections) {
  private static final Pattern ORIGIN =
      Pattern.compile(
          "[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(:[0-9]{1,5})?|https?://\\[[0-9a-fA-F:]+](:[0-9]{1,5})?");
  private static final Pattern HOST = Pattern.compile("[A-Za-z0-9._-]{1,253}|\\[?[0-9a-fA-F:.]+]?");

  public static final int DEFAULT_MAX_CONNECTIONS = 4096;

  /** What asks nobody for anything, and so is for the loopback address. */
  public static final FrontOptions DEFAULT =
      new FrontOptions(null, null, false, false, List.of(), List.of(), DEFAULT_MAX_CONNECTIONS);

  /**
   * Files in PEM form.
   *
   * @param certificate the server's, with those between it and a root
   * @param key the certificate's, PKCS #8
   * @param clientCa who signs clients' certificates; null: they show none
   */
  public record Tls(Path certificate, Path key, @Nullable Path clientCa) {}

  public FrontOptions {
    origins = List.copyOf(origins);
    hosts = List.copyOf(hosts);
    for (String origin : origins) {
      if (!ORIGIN.matcher(origin).matches()) {
        throw new IllegalArgumentException(
            "cors-origin: expected an origin such as https://chat.example or http://localhost:3000,"
                + " without path, got '%s'".formatted(origin));
      }
    }
    for (String host : hosts) {
      if (!HOST.matcher(host).matches()) {
        throw new IllegalArgumentException(
            "allow-host: expected a name without scheme and port, got '%s'".formatted(host));
      }
    }
    if (maxConnections < 1) {
      throw new IllegalArgumentException(
          "max-connections: expected 1 or more, got " + maxConnections);
    }
  }

  /** Whether callers have to say who they are. */
  public boolean asks() {
    return keys != null || (tls != null && tls.clientCa() != null);
  }

  /**
   * Whether this machine alone can reach it at {@code host}.
   *
   * @throws IllegalArgumentException if there is no such address
   */
  public static boolean isLoopback(String host) {
    try {
      return InetAddress.getByName(host).isLoopbackAddress();
    } catch (UnknownHostException e) {
      throw new IllegalArgumentException(
          "host: expected an address of this machine, such as 127.0.0.1, got '%s'".formatted(host),
          e);
    }
  }

  /**
   * Refuses to open to a network what is for this machine alone.
   *
   * @return what is to be said about it, or null
   * @throws IllegalArgumentException saying what to do
   */
  public @Nullable String check(String host) {
    if (isLoopback(host)) {
      return asks()
          ? null
          : "listening on %s alone, without keys: whoever uses this machine may do everything"
              .formatted(host);
    }
    if (!insecure && !asks()) {
      throw new IllegalArgumentException(
          ("host: %s can be reached from other machines, and nobody would have to show a key; give"
               + " --keys FILE (wardrobe keys create makes one) with --tls-cert and --tls-key, or"
               + " --host 127.0.0.1, or, where the network itself keeps others out, --insecure")
              .formatted(host));
    }
    if (!insecure && tls == null) {
      throw new IllegalArgumentException(
          ("host: %s can be reached from other machines, and keys would pass unencrypted; give"
                  + " --tls-cert and --tls-key, or --host 127.0.0.1, or, where something before it"
                  + " encrypts, --insecure")
              .formatted(host));
    }
    if (asks() && tls != null) {
      return null;
    }
    return asks()
        ? "INSECURE: keys and texts pass unencrypted at %s (--insecure)".formatted(host)
        : "INSECURE: everybody who can reach %s may do everything (--insecure)".formatted(host);
  }

  /** Which names it may be called by at {@code host}. */
  Sites.Hosts namesAt(String host) {
    if (asks()) {
      return Sites.Hosts.ANY;
    }
    return isLoopback(host) ? Sites.Hosts.LOOPBACK : Sites.Hosts.ADDRESSES;
  }
}
