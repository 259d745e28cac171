package dev.wardrobe.http;

import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.core.http.HttpVersion;
import io.vertx.ext.web.RoutingContext;
import io.vertx.grpc.common.GrpcStatus;
import java.nio.charset.StandardCharsets;
import java.util.Locale;

/** Answers to those who do not come in. */
final class Refusals {
  /** What is read of a refused request's body to keep its connection. */
  private static final long SMALL = 1 << 20;

  private Refusals() {}

  /** Over HTTP, in OpenAI's form. */
  static void answer(RoutingContext context, int status, String message) {
    prepare(context.request(), status);
    HttpErrors.answer(context, status, message, null);
  }

  /** Over gRPC. */
  static void answerGrpc(HttpServerRequest request, int status, String message) {
    prepare(request, 200);
    String type = request.getHeader(HttpHeaders.CONTENT_TYPE);
    request
        .response()
        .setStatusCode(200)
        .putHeader(HttpHeaders.CONTENT_TYPE, type == null ? "application/grpc" : type)
        .putHeader("grpc-status", Integer.toString(status(status).code))
        .putHeader("grpc-message", encode(message))
        .end();
  }

  private static void prepare(HttpServerRequest request, int status) {
    HttpServerResponse response = request.response();
    if (status == 401) {
      response.putHeader("www-authenticate", "Bearer realm=\"wardrobe\"");
    }
    if (request.version() != HttpVersion.HTTP_2 && !request.isEnded() && !isSmall(request)) {
      // Else all of it would have to be read, to find where the next request begins.
      response.putHeader(HttpHeaders.CONNECTION, "close");
    }
  }

  private static boolean isSmall(HttpServerRequest request) {
    String length = request.getHeader(HttpHeaders.CONTENT_LENGTH);
    return length == null
        ? request.getHeader(HttpHeaders.TRANSFER_ENCODING) == null
        : length.matches("[0-9]{1,8}") && Long.parseLong(length) <= SMALL;
  }

  private static GrpcStatus status(int status) {
    return switch (status) {
      case 401 -> GrpcStatus.UNAUTHENTICATED;
      case 403 -> GrpcStatus.PERMISSION_DENIED;
      case 429 -> GrpcStatus.RESOURCE_EXHAUSTED;
      case 503 -> GrpcStatus.UNAVAILABLE;
      default -> GrpcStatus.INVALID_ARGUMENT;
    };
  }

  /** As gRPC's protocol wants messages. */
  private static String encode(String message) {
    StringBuilder encoded = new StringBuilder();
    for (byte b : message.getBytes(StandardCharsets.UTF_8)) {
      if (b >= ' ' && b <= '~' && b != '%') {
        encoded.append((char) b);
      } else {
        encoded.append(String.format(Locale.ROOT, "%%%02X", b));
      }
    }
    return encoded.toString();
  }
}
