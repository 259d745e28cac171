package dev.wardrobe.spi;

import io.grpc.BindableService;
import java.util.List;

/**
 * What joins the server from outside: found by {@link java.util.ServiceLoader}, so that the server
 * never names it. The trainer is one.
 */
public interface ServerExtension {

  /** Further commands of {@code wardrobe}: objects annotated with picocli's Command. */
  default List<Object> commands() {
    return List.of();
  }

  /** gRPC services on the server's port. */
  default List<BindableService> services(ServerContext context) {
    return List.of();
  }
}
