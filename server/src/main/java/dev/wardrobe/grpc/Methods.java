package dev.wardrobe.grpc;

import com.google.api.AnnotationsProto;
import com.google.api.HttpRule;
import com.google.protobuf.Descriptors;
import com.google.protobuf.Message;
import dev.wardrobe.tenant.OpenCalls;
import io.vertx.core.Context;
import io.vertx.core.Vertx;
import io.vertx.grpc.common.GrpcMessageDecoder;
import io.vertx.grpc.common.GrpcMessageEncoder;
import io.vertx.grpc.common.GrpcStatus;
import io.vertx.grpc.common.ServiceMethod;
import io.vertx.grpc.common.ServiceName;
import io.vertx.grpc.server.GrpcServer;
import io.vertx.grpc.server.GrpcServerRequest;
import io.vertx.grpc.server.Service;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * A gRPC service made of handlers that each take one request and a {@link Reply}.
 *
 * <p>Vert.x's bridge for gRPC-Java services does not tell a service that its reader's connection
 * was lost; ours need to know, to free the reader's place in the batch, so they are bound to the
 * server directly.
 */
final class Methods implements Service {
  /** One method: called on the event loop, must not block. */
  interface Handler<Q, R> {
    void handle(Q request, long timeoutMillis, Reply<R> reply);
  }

  /** A method whose caller sends many messages: begun on the event loop, must not block. */
  interface StreamHandler<Q, R> {
    /**
     * Takes a call.
     *
     * @param next asks for the next message, from any thread; none comes unasked
     */
    Inbound<Q> begin(Runnable next, Reply<R> reply);
  }

  /** What a caller sends: each called on the event loop, must not block. */
  interface Inbound<Q> {
    void message(Q message);

    /** The caller has sent all; asked for like a message. */
    void end();
  }

  private final Descriptors.ServiceDescriptor descriptor;
  private final OpenCalls open;
  private final List<Consumer<GrpcServer>> bindings = new ArrayList<>();
  private final List<JsonMethod> json = new ArrayList<>();

  /**
   * @param open where calls are noted while they last
   */
  Methods(Descriptors.ServiceDescriptor descriptor, OpenCalls open) {
    this.descriptor = descriptor;
    this.open = open;
  }

  /** Adds a method by its name in the descriptor, as JSON too where its annotation gives a path. */
  <Q extends Message, R extends Message> Methods with(
      String method, Q emptyRequest, Handler<Q, R> handler) {
    HttpRule rule =
        descriptor.findMethodByName(method).getOptions().getExtension(AnnotationsProto.http);
    if (rule.getPatternCase() != HttpRule.PatternCase.PATTERN_NOT_SET) {
      json.add(JsonMethod.of(rule, emptyRequest, handler));
    }
    return this.<Q, R>add(
        method,
        emptyRequest,
        (_, call, reply) ->
            call.handler(
                request -> {
                  try {
                    handler.handle(request, timeoutMillis(call), reply);
                  } catch (Throwable e) {
                    reply.fail(e);
                  }
                }));
  }

  /** Adds a method whose caller sends many messages, by its name in the descriptor. */
  <Q extends Message, R extends Message> Methods withStream(
      String method, Q emptyRequest, StreamHandler<Q, R> handler) {
    return this.<Q, R>add(
        method,
        emptyRequest,
        (context, call, reply) -> {
          call.pause();
          Inbound<Q> inbound = handler.begin(() -> context.runOnContext(_ -> call.fetch(1)), reply);
          call.handler(inbound::message);
          call.endHandler(_ -> inbound.end());
          call.fetch(1);
        });
  }

  /** A call that has come, on the event loop. */
  private interface Arrival<Q, R> {
    void accept(Context context, GrpcServerRequest<Q, R> call, Reply<R> reply);
  }

  private <Q extends Message, R extends Message> Methods add(
      String method, Q emptyRequest, Arrival<Q, R> arrival) {
    GrpcMessageDecoder<Q> decoder = GrpcMessageDecoder.decoder(emptyRequest.newBuilderForType());
    ServiceMethod<Q, R> serviceMethod =
        ServiceMethod.server(name(), method, GrpcMessageEncoder.encoder(), decoder);
    bindings.add(
        server ->
            server.callHandler(
                serviceMethod,
                call -> {
                  Context context = Objects.requireNonNull(Vertx.currentContext());
                  Reply<R> reply = new Reply<>(context, new GrpcWire<>(call));
                  reply.onEnd(
                      open.add(
                          reply.caller(), why -> reply.breakOff(GrpcStatus.UNAUTHENTICATED, why)));
                  arrival.accept(context, call, reply);
                }));
    return this;
  }

  /** 0 for none. Vert.x says 0 for a timeout under a millisecond too, which is over already. */
  private static long timeoutMillis(GrpcServerRequest<?, ?> call) {
    return call.timeout() == 0 && call.headers().contains("grpc-timeout") ? 1 : call.timeout();
  }

  /** Those that can be called as JSON over HTTP. */
  List<JsonMethod> json() {
    return List.copyOf(json);
  }

  @Override
  public ServiceName name() {
    return ServiceName.create(descriptor.getFullName());
  }

  @Override
  public Descriptors.ServiceDescriptor descriptor() {
    return descriptor;
  }

  @Override
  public void bind(GrpcServer server) {
    bindings.forEach(binding -> binding.accept(server));
  }
}
