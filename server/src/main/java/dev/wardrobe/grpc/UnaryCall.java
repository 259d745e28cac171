package dev.wardrobe.grpc;

import com.google.api.AnnotationsProto;
import com.google.api.HttpRule;
import com.google.protobuf.Descriptors;
import com.google.protobuf.Message;
import io.grpc.BindableService;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCall;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.protobuf.ProtoMethodDescriptorSupplier;
import io.vertx.grpc.common.GrpcStatus;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A call of a gRPC-Java service's method by somebody who has a {@link Reply}: so that what
 * extensions bring can be called as JSON too.
 */
final class UnaryCall<Q, R> extends ServerCall<Q, R> {
  private final MethodDescriptor<Q, R> method;
  private final Reply<R> reply;
  private @Nullable R answer;
  private volatile boolean gone;

  private UnaryCall(MethodDescriptor<Q, R> method, Reply<R> reply) {
    this.method = method;
    this.reply = reply;
    reply.onGone(() -> gone = true);
  }

  /** A service's methods of one request and one answer whose annotations give a path. */
  static List<JsonMethod> json(BindableService service) {
    List<JsonMethod> methods = new ArrayList<>();
    for (ServerMethodDefinition<?, ?> method : service.bindService().getMethods()) {
      JsonMethod json = json(method);
      if (json != null) {
        methods.add(json);
      }
    }
    return methods;
  }

  private static @Nullable JsonMethod json(ServerMethodDefinition<?, ?> definition) {
    MethodDescriptor<?, ?> method = definition.getMethodDescriptor();
    if (method.getType() != MethodDescriptor.MethodType.UNARY
        || !(method.getSchemaDescriptor() instanceof ProtoMethodDescriptorSupplier supplier)
        || !(method.getRequestMarshaller()
            instanceof MethodDescriptor.PrototypeMarshaller<?> marshaller)
        || !(marshaller.getMessagePrototype() instanceof Message emptyRequest)) {
      return null;
    }
    Descriptors.MethodDescriptor descriptor = supplier.getMethodDescriptor();
    HttpRule rule = descriptor.getOptions().getExtension(AnnotationsProto.http);
    if (rule.getPatternCase() == HttpRule.PatternCase.PATTERN_NOT_SET) {
      return null;
    }
    // What a generated service takes and gives are messages.
    @SuppressWarnings("unchecked")
    ServerMethodDefinition<Message, Message> typed =
        (ServerMethodDefinition<Message, Message>) definition;
    return JsonMethod.<Message, Message>of(
        rule, emptyRequest, (request, timeout, reply) -> start(typed, request, reply));
  }

  private static <Q, R> void start(
      ServerMethodDefinition<Q, R> definition, Q request, Reply<R> reply) {
    UnaryCall<Q, R> call = new UnaryCall<>(definition.getMethodDescriptor(), reply);
    Listener<Q> listener = definition.getServerCallHandler().startCall(call, new Metadata());
    listener.onReady();
    listener.onMessage(request);
    listener.onHalfClose();
  }

  @Override
  public void request(int messages) {
    // There is one, and it comes by itself.
  }

  @Override
  public void sendHeaders(Metadata headers) {
    // Nobody asked for any.
  }

  @Override
  public void sendMessage(R message) {
    answer = message;
  }

  @Override
  public void close(Status status, Metadata trailers) {
    R message = answer;
    if (!status.isOk()) {
      String description = status.getDescription();
      reply.fail(
          GrpcStatus.valueOf(status.getCode().value()),
          description == null ? status.getCode().toString() : description);
    } else if (message != null) {
      reply.end(message);
    } else {
      reply.fail(GrpcStatus.INTERNAL, "the method ended without an answer");
    }
  }

  @Override
  public boolean isCancelled() {
    return gone;
  }

  @Override
  public MethodDescriptor<Q, R> getMethodDescriptor() {
    return method;
  }
}
