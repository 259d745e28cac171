package dev.wardrobe.http;

import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.net.HostAndPort;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Which web sites may have a browser call this server: its own page, and those that the operator
 * names. Whoever asks without a browser says of no site, and is not affected.
 */
final class Sites {
  /** Four numbers, as browsers write addresses; whoever resolves names makes no such host. */
  private static final Pattern IPV4 = Pattern.compile("[0-9]{1,3}(\\.[0-9]{1,3}){3}");

  private static final Pattern LOOPBACK = Pattern.compile("127(\\.[0-9]{1,3}){3}");

  /** As it may be repeated in a header. */
  private static final Pattern HEADER_NAMES = Pattern.compile("[A-Za-z0-9-, ]{1,2000}");

  private final Set<String> origins;
  private final Set<String> hosts;
  private final Hosts rule;

  /** Which names the server may be called by. */
  enum Hosts {
    /**
     * Those of the loopback address. A page elsewhere that has its own name resolve to that address
     * would else be of the same site, to the browser, as this server.
     */
    LOOPBACK,
    /** Addresses: to have a name resolve to it is of no use, since the name is what counts. */
    ADDRESSES,
    /** Any: whoever asks has to show more than that the server can be reached. */
    ANY
  }

  /**
   * @param origins that may call it from a browser, such as {@code https://chat.example}
   * @param hosts further names that it may be called by, without port
   */
  Sites(List<String> origins, List<String> hosts, Hosts rule) {
    this.origins = Set.copyOf(origins);
    this.hosts =
        hosts.stream().map(host -> host.toLowerCase(Locale.ROOT)).collect(Collectors.toSet());
    this.rule = rule;
  }

  /** Why a request is not answered for where it comes from, or null if that is well. */
  @Nullable String refusal(HttpServerRequest request) {
    HostAndPort authority = request.authority();
    String named = request.getHeader("host");
    if (authority == null ? named != null : !mayBeCalled(authority.host())) {
      return ("host: expected %s, got '%s'; start the server with --allow-host %s if it is to be"
              + " called so")
          .formatted(
              rule == Hosts.LOOPBACK ? "localhost or a loopback address" : "an IP address",
              authority == null ? "what is none" : plain(authority.host()),
              authority == null ? "NAME" : plain(authority.host()));
    }
    HttpMethod method = request.method();
    if (method.equals(HttpMethod.GET) || method.equals(HttpMethod.HEAD)) {
      // Whatever it is, a page elsewhere cannot read it, and it changes nothing.
      return null;
    }
    String origin = request.getHeader("origin");
    if (origin == null) {
      String site = request.getHeader("sec-fetch-site");
      return site == null || site.equals("same-origin") || site.equals("none")
          ? null
          : foreign("of another site");
    }
    return isOwn(origin, authority) || origins.contains(origin)
        ? null
        : foreign("of '%s'".formatted(plain(origin)));
  }

  private static String foreign(String whose) {
    return "origin: expected the page of this server, got one "
        + whose
        + "; start the server with --cors-origin ORIGIN if that page may call it";
  }

  private boolean mayBeCalled(String host) {
    String name = host.toLowerCase(Locale.ROOT);
    if (rule == Hosts.ANY || hosts.contains(name)) {
      return true;
    }
    String plain =
        name.startsWith("[") && name.endsWith("]") ? name.substring(1, name.length() - 1) : name;
    if (plain.equals("localhost") || plain.endsWith(".localhost")) {
      return true;
    }
    return rule == Hosts.LOOPBACK
        ? LOOPBACK.matcher(plain).matches() || plain.equals("::1")
        : IPV4.matcher(plain).matches() || plain.indexOf(':') >= 0;
  }

  /** Whether it is that of a page that this server gave; behind a proxy the scheme may differ. */
  private static boolean isOwn(String origin, @Nullable HostAndPort authority) {
    int scheme = origin.indexOf("://");
    if (scheme < 0 || authority == null) {
      return false;
    }
    HostAndPort from = HostAndPort.parseAuthority(origin.substring(scheme + 3), -1);
    if (from == null || !from.host().equalsIgnoreCase(authority.host())) {
      return false;
    }
    int port = origin.startsWith("https") ? 443 : 80;
    return (from.port() < 0 ? port : from.port())
        == (authority.port() < 0 ? port : authority.port());
  }

  /** Says to a browser whether the page may read the answer. */
  void mark(HttpServerRequest request) {
    if (origins.isEmpty()) {
      return;
    }
    request.response().headers().add("vary", "origin");
    String origin = request.getHeader("origin");
    if (origin != null && origins.contains(origin)) {
      request
          .response()
          .putHeader("access-control-allow-origin", origin)
          .putHeader(
              "access-control-expose-headers",
              "x-request-id, retry-after, grpc-status, grpc-message");
    }
  }

  /** Answers what a browser asks before it asks; false if it is not that, or not allowed. */
  boolean preflight(HttpServerRequest request) {
    String origin = request.getHeader("origin");
    if (!request.method().equals(HttpMethod.OPTIONS)
        || origin == null
        || !origins.contains(origin)
        || request.getHeader("access-control-request-method") == null) {
      return false;
    }
    mark(request);
    String headers = request.getHeader("access-control-request-headers");
    request
        .response()
        .setStatusCode(204)
        .putHeader("access-control-allow-methods", "GET, POST, DELETE")
        .putHeader(
            "access-control-allow-headers",
            headers != null && HEADER_NAMES.matcher(headers).matches()
                ? headers
                : "authorization, api-key, content-type")
        .putHeader("access-control-max-age", "600")
        .end();
    return true;
  }

  private static String plain(String text) {
    String shown = text.length() > 100 ? text.substring(0, 100) + "…" : text;
    return shown.replaceAll("[^\\x20-\\x7e…]", "?");
  }
}
