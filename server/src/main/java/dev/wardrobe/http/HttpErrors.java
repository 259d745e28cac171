package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.serve.RequestException;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.ext.web.RoutingContext;
import io.vertx.ext.web.handler.HttpException;
import java.time.Duration;
import java.util.concurrent.CompletionException;
import java.util.concurrent.RejectedExecutionException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** From exceptions to HTTP's statuses and OpenAI's form of an error, in one place. */
final class HttpErrors {
  private static final Logger log = LoggerFactory.getLogger(HttpErrors.class);

  private HttpErrors() {}

  /** Answers a request that failed, if it has no answer yet. */
  static void answer(RoutingContext context) {
    Throwable failure = context.failure();
    if (failure == null) {
      answer(context, context.statusCode(), reason(context.statusCode()), null);
    } else {
      answer(context, failure);
    }
  }

  /** Answers a request that failed, if it has no answer yet; on its event loop. */
  static void answer(RoutingContext context, Throwable failure) {
    Throwable cause = unwrapped(failure);
    HttpServerResponse response = context.response();
    Duration after = cause instanceof RequestException e ? e.retryAfter() : null;
    if (after != null && !response.headWritten()) {
      response.putHeader(HttpHeaders.RETRY_AFTER, Long.toString(Math.max(1, after.toSeconds())));
    }
    answer(context, status(cause), body(context, cause));
  }

  /**
   * Answers with an error.
   *
   * @param parameter the field that it is about, or null
   */
  static void answer(
      RoutingContext context, int status, String message, @Nullable String parameter) {
    answer(context, status, body(status, message, parameter));
  }

  private static void answer(RoutingContext context, int status, ObjectNode body) {
    HttpServerResponse response = context.response();
    if (response.ended() || response.headWritten()) {
      return;
    }
    response.setStatusCode(status).putHeader(HttpHeaders.CONTENT_TYPE, "application/json");
    if (context.request().method().equals(HttpMethod.HEAD)) {
      response.end();
    } else {
      response.end(body.toString());
    }
  }

  /** What a request's failure is told as, in OpenAI's form; what only we can mend is logged. */
  static ObjectNode body(RoutingContext context, Throwable failure) {
    Throwable cause = unwrapped(failure);
    int status = status(cause);
    if (cause instanceof FieldException e) {
      return body(status, message(e), e.parameter(), e.code() == null ? code(status) : e.code());
    }
    if (status != 500) {
      return body(status, message(cause), null);
    }
    if (context.response().closed() || context.response().ended()) {
      log.debug("request {} was given up", RequestIds.of(context), cause);
    } else {
      log.error("request {} failed", RequestIds.of(context), cause);
    }
    boolean written = cause instanceof RequestException || cause instanceof AdapterException;
    return body(
        status,
        written
            ? message(cause)
            : "the server failed; its log says why, under request " + RequestIds.of(context),
        null);
  }

  static ObjectNode body(int status, String message, @Nullable String parameter) {
    return body(status, message, parameter, code(status));
  }

  private static ObjectNode body(
      int status, String message, @Nullable String parameter, @Nullable String code) {
    ObjectNode body = JsonNodeFactory.instance.objectNode();
    body.putObject("error")
        .put("message", message)
        .put("type", type(status))
        .put("param", parameter)
        .put("code", code);
    return body;
  }

  private static Throwable unwrapped(Throwable failure) {
    return failure instanceof CompletionException e && e.getCause() != null
        ? unwrapped(e.getCause())
        : failure;
  }

  static int status(Throwable failure) {
    return switch (failure) {
      case RequestException e ->
          switch (e.code()) {
            case INVALID_ARGUMENT, FAILED_PRECONDITION -> 400;
            case NOT_FOUND -> 404;
            case PERMISSION_DENIED -> 403;
            case RESOURCE_EXHAUSTED -> 429;
            case DEADLINE_EXCEEDED -> 504;
            case CANCELLED -> 499;
            case UNAVAILABLE -> 503;
            case DATA_LOSS, INTERNAL -> 500;
          };
      case AdapterException e ->
          switch (e.reason()) {
            case INVALID, MISMATCH, NOT_SET_UP, CUT_OFF, OUTDATED -> 400;
            case NOT_FOUND -> 404;
            case EXISTS, IN_USE -> 409;
            case REFUSED_PATH -> 403;
            case TOO_LARGE -> 413;
            case DAMAGED -> 500;
            case IO -> 503;
          };
      case OutOfMemoryException e -> 429;
      case RejectedExecutionException e -> 503;
      case FieldException e -> e.status();
      case HttpException e -> e.getStatusCode();
      default -> 500;
    };
  }

  private static String message(Throwable failure) {
    if (failure instanceof RejectedExecutionException) {
      return "the server is stopping; ask again once it is up";
    }
    if (failure instanceof HttpException e) {
      String payload = e.getPayload();
      return payload == null ? reason(e.getStatusCode()) : payload;
    }
    String message = failure.getMessage();
    return message == null ? failure.toString() : message;
  }

  private static String reason(int status) {
    return switch (status) {
      case 404 -> "nothing is there";
      case 405 -> "this method is not for this path";
      case 413 -> "the request is too large";
      default -> "the request failed with status " + status;
    };
  }

  private static String type(int status) {
    return switch (status) {
      case 401 -> "authentication_error";
      case 403 -> "permission_error";
      case 404 -> "not_found_error";
      case 429 -> "rate_limit_error";
      default -> status < 500 ? "invalid_request_error" : "server_error";
    };
  }

  private static @Nullable String code(int status) {
    return switch (status) {
      case 401 -> "invalid_api_key";
      case 404 -> "not_found";
      case 429 -> "overloaded";
      default -> null;
    };
  }
}
