package dev.wardrobe.grpc;

import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import io.grpc.BindableService;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.InternalServer;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.ServerServiceDefinition;
import io.grpc.protobuf.ProtoServiceDescriptorSupplier;
import io.grpc.protobuf.services.ProtoReflectionService;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.vertx.grpc.server.Service;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * {@code grpc.reflection} over the services of a Vert.x server.
 *
 * <p>The answers are gRPC-Java's own: it takes the services from the {@link Server} in its context,
 * so this gives it one that does nothing but list them. (Vert.x's reflection ends the stream after
 * its first answer, which breaks clients that ask several questions on one, as grpcurl does.)
 */
final class Reflection {
  private Reflection() {}

  static BindableService of(Supplier<List<Service>> services) {
    return answering(ProtoReflectionServiceV1.newInstance(), services);
  }

  /** The same as {@code grpc.reflection.v1alpha}, which is all that older tools know. */
  @SuppressWarnings("deprecation") // as the protocol is; clients of it are still about
  static BindableService alpha(Supplier<List<Service>> services) {
    return answering(ProtoReflectionService.newInstance(), services);
  }

  private static BindableService answering(
      BindableService answers, Supplier<List<Service>> services) {
    ServerInterceptor withServer =
        new ServerInterceptor() {
          @Override
          public <Q, R> ServerCall.Listener<Q> interceptCall(
              ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
            Context context =
                Context.current()
                    .withValue(InternalServer.SERVER_CONTEXT_KEY, new Listing(services.get()));
            return Contexts.interceptCall(context, call, headers, next);
          }
        };
    return () -> ServerInterceptors.intercept(answers, withServer);
  }

  /** A server that can only be asked what it serves. */
  private static final class Listing extends Server {
    private final List<ServerServiceDefinition> definitions;

    Listing(List<Service> services) {
      definitions = services.stream().map(service -> definition(service.descriptor())).toList();
    }

    private static ServerServiceDefinition definition(ServiceDescriptor descriptor) {
      ProtoServiceDescriptorSupplier schema =
          new ProtoServiceDescriptorSupplier() {
            @Override
            public ServiceDescriptor getServiceDescriptor() {
              return descriptor;
            }

            @Override
            public FileDescriptor getFileDescriptor() {
              return descriptor.getFile();
            }
          };
      return ServerServiceDefinition.builder(
              io.grpc.ServiceDescriptor.newBuilder(descriptor.getFullName())
                  .setSchemaDescriptor(schema)
                  .build())
          .build();
    }

    @Override
    public List<ServerServiceDefinition> getImmutableServices() {
      return definitions;
    }

    @Override
    public Server start() {
      return this;
    }

    @Override
    public Server shutdown() {
      return this;
    }

    @Override
    public Server shutdownNow() {
      return this;
    }

    @Override
    public boolean isShutdown() {
      return false;
    }

    @Override
    public boolean isTerminated() {
      return false;
    }

    @Override
    public boolean awaitTermination(long timeout, TimeUnit unit) {
      return true;
    }

    @Override
    public void awaitTermination() {}
  }
}
