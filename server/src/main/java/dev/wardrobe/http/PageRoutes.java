package dev.wardrobe.http;

import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The page: {@code /}, and what belongs to it under {@code /page/}. Kept in memory; it asks for
 * nothing from elsewhere, so that it works without a network. It is open to everyone, since it
 * knows nothing: what it shows it asks the other routes for, with the reader's key.
 */
final class PageRoutes {
  private static final String INDEX = "index.html";

  private static final List<String> FILES =
      List.of(
          INDEX,
          "page.css",
          "icon.svg",
          "theme.js",
          "page.js",
          "api.js",
          "dom.js",
          "events.js",
          "chat.js",
          "adapters.js",
          "upload.js",
          "charts.js",
          "plot.js",
          "runs.js");

  /**
   * Scripts, styles and requests to this server alone; none inline, none evaluated, and no text
   * that becomes markup.
   */
  private static final String POLICY =
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
          + " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
          + " require-trusted-types-for 'script'; trusted-types 'none'";

  private static final Map<String, String> TYPES =
      Map.of(
          "html", "text/html; charset=utf-8",
          "css", "text/css; charset=utf-8",
          "js", "text/javascript; charset=utf-8",
          "svg", "image/svg+xml");

  /**
   * A file of the page.
   *
   * @param tag what it is compared by
   */
  private record Asset(Buffer bytes, String type, String tag) {
    static Asset read(String name) {
      try (InputStream in = PageRoutes.class.getResourceAsStream("page/" + name)) {
        if (in == null) {
          throw new IllegalStateException("the page's file " + name + " is missing; build again");
        }
        byte[] bytes = in.readAllBytes();
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes);
        String extension = name.substring(name.lastIndexOf('.') + 1).toLowerCase(Locale.ROOT);
        return new Asset(
            Buffer.buffer(bytes),
            TYPES.getOrDefault(extension, "application/octet-stream"),
            '"' + HexFormat.of().formatHex(digest, 0, 12) + '"');
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      } catch (NoSuchAlgorithmException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  void mount(Router router) {
    for (String name : FILES) {
      Asset asset = Asset.read(name);
      router
          .route(name.equals(INDEX) ? "/" : "/page/" + name)
          .method(HttpMethod.GET)
          .method(HttpMethod.HEAD)
          .handler(context -> answer(context, asset));
    }
  }

  private static void answer(RoutingContext context, Asset asset) {
    HttpServerResponse response =
        context
            .response()
            .putHeader(HttpHeaders.ETAG, asset.tag())
            // Kept, but asked for again, or a page would outlive its server's version.
            .putHeader(HttpHeaders.CACHE_CONTROL, "no-cache")
            .putHeader("content-security-policy", POLICY)
            .putHeader("x-content-type-options", "nosniff")
            .putHeader("referrer-policy", "no-referrer")
            .putHeader("cross-origin-opener-policy", "same-origin")
            .putHeader("cross-origin-resource-policy", "same-origin");
    String known = context.request().getHeader(HttpHeaders.IF_NONE_MATCH);
    if (known != null && (known.equals("*") || known.contains(asset.tag()))) {
      response.setStatusCode(304).end();
      return;
    }
    response.putHeader(HttpHeaders.CONTENT_TYPE, asset.type());
    if (context.request().method().equals(HttpMethod.HEAD)) {
      response
          .putHeader(HttpHeaders.CONTENT_LENGTH, Integer.toString(asset.bytes().length()))
          .end();
    } else {
      response.end(asset.bytes());
    }
  }
}
