package dev.wardrobe.grpc;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.telemetry.Origin;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpServerResponse;
import io.vertx.grpc.common.GrpcStatus;
import java.time.Duration;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** That of a method of one answer, called as JSON over HTTP. */
final class JsonWire<T extends Message> implements Reply.Wire<T> {
  /** Fields by their names in the .proto files, with those at their defaults. */
  private static final JsonFormat.Printer PRINTER =
      JsonFormat.printer().preservingProtoFieldNames().alwaysPrintFieldsWithNoPresence();

  private final Origin origin;
  private final HttpServerResponse response;
  private final Consumer<Runnable> ended;

  /**
   * @param ended told what to run when the answer has ended, or cannot be read any more
   */
  JsonWire(Origin origin, HttpServerResponse response, Consumer<Runnable> ended) {
    this.origin = origin;
    this.response = response;
    this.ended = ended;
  }

  @Override
  public Origin origin() {
    return origin;
  }

  @Override
  public void open(Runnable gone, Runnable drained) {
    // An answer that was given is over before, and its reader not gone.
    ended.accept(gone);
  }

  @Override
  public boolean write(T message) {
    throw new UnsupportedOperationException("a stream is no JSON document");
  }

  @Override
  public Runnable last(T message) {
    Buffer json;
    try {
      json = Buffer.buffer(PRINTER.print(message) + "\n");
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalStateException("an answer that is no JSON", e);
    }
    return () -> end(200, json);
  }

  @Override
  public void end() {
    end(200, Buffer.buffer("{}\n"));
  }

  @Override
  public void fail(GrpcStatus status, String message, @Nullable Duration retryAfter) {
    ObjectNode error = JsonNodeFactory.instance.objectNode();
    error.put("code", status.code).put("status", status.name()).put("message", message);
    if (retryAfter != null) {
      long seconds = Math.ceilDiv(retryAfter.toMillis(), 1000);
      error.put("retry_after_ms", retryAfter.toMillis());
      response.putHeader(HttpHeaders.RETRY_AFTER, Long.toString(Math.max(1, seconds)));
    }
    end(httpStatus(status), Buffer.buffer(error + "\n"));
  }

  private void end(int status, Buffer json) {
    if (!response.ended() && !response.closed()) {
      response
          .setStatusCode(status)
          .putHeader(HttpHeaders.CONTENT_TYPE, "application/json")
          .end(json);
    }
  }

  /** As google.rpc.Code says. */
  static int httpStatus(GrpcStatus status) {
    return switch (status) {
      case OK -> 200;
      case INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE -> 400;
      case UNAUTHENTICATED -> 401;
      case PERMISSION_DENIED -> 403;
      case NOT_FOUND -> 404;
      case ALREADY_EXISTS, ABORTED -> 409;
      case RESOURCE_EXHAUSTED -> 429;
      case CANCELLED -> 499;
      case UNIMPLEMENTED -> 501;
      case UNAVAILABLE -> 503;
      case DEADLINE_EXCEEDED -> 504;
      case UNKNOWN, INTERNAL, DATA_LOSS -> 500;
    };
  }
}
