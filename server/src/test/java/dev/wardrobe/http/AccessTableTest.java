package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.MethodDescriptor;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.v1.AdapterProto;
import dev.wardrobe.v1.GenerationProto;
import dev.wardrobe.v1.ModelInfoResponse;
import io.grpc.health.v1.HealthProto;
import io.grpc.reflection.v1.ServerReflectionProto;
import io.vertx.core.http.HttpMethod;
import io.vertx.ext.web.Route;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** Everything that can be asked for says what it takes. */
final class AccessTableTest {
  private final Access access = new Access(false);

  @Test
  void everyMethod_isListed() {
    List<String> unlisted = new ArrayList<>();
    for (FileDescriptor file :
        List.of(
            GenerationProto.getDescriptor(),
            AdapterProto.getDescriptor(),
            HealthProto.getDescriptor(),
            ServerReflectionProto.getDescriptor())) {
      for (var service : file.getServices()) {
        for (MethodDescriptor method : service.getMethods()) {
          String path = "/" + service.getFullName() + "/" + method.getName();
          if (access.find("POST", path) == null) {
            unlisted.add(path);
          }
        }
      }
    }
    assertThat(unlisted).isEmpty();
  }

  /** As JSON a method takes what it takes as gRPC, or more where its path is another's too. */
  @Test
  void everyRoute_isListed() throws Exception {
    ExecutorService workers = Executors.newSingleThreadExecutor();
    AdapterRegistry adapters =
        new AdapterRegistry(null, null, List.of(), AdapterOptions.DEFAULT, workers);
    List<String> unlisted = new ArrayList<>();
    int looked = 0;
    try (HttpFrontend frontend =
        new HttpFrontend(
            new Served(
                null,
                null,
                adapters,
                null,
                workers,
                ModelInfoResponse::getDefaultInstance,
                new Telemetry("", null, adapters, ModelInfoResponse::getDefaultInstance)),
            List.of())) {
      for (Route route : frontend.routes()) {
        String path = path(route);
        Set<HttpMethod> methods = route.methods();
        if (path != null && methods != null) {
          for (HttpMethod method : methods) {
            looked++;
            if (access.find(method.name(), path) == null) {
              unlisted.add(method + " " + path);
            }
          }
        }
      }
    } finally {
      workers.shutdownNow();
    }
    assertThat(looked).isGreaterThan(30);
    assertThat(unlisted).isEmpty();
  }

  /** A path that a route is for; null if it is for all. */
  private static @Nullable String path(Route route) {
    String path = route.getPath() == null ? route.getName() : route.getPath();
    if (path == null) {
      return null;
    }
    // Regular expressions of literals and groups, from annotations; and stars.
    String plain =
        path.replace("\\Q", "")
            .replace("\\E", "")
            .replace("(.+)", "acme/x")
            .replace("([^/]+)", "x");
    // Of a star the router keeps what is before it.
    return plain.endsWith("/") && plain.length() > 1 ? plain + "x" : plain;
  }

  @Test
  void scopes_areWhatTheDocumentSays() {
    assertThat(need("POST", "/v1/chat/completions")).containsExactly(Scope.INFERENCE);
    assertThat(need("POST", "/v1/adapters/acme/x:load")).containsExactly(Scope.ADAPTERS);
    assertThat(need("POST", "/v1/adapters:scan")).containsExactly(Scope.ADMIN);
    assertThat(need("DELETE", "/v1/adapters/x/versions")).containsExactly(Scope.ADAPTERS);
    assertThat(need("GET", "/v1/adapters/acme/x"))
        .containsExactlyInAnyOrder(Scope.INFERENCE, Scope.ADAPTERS);
    assertThat(need("GET", "/v1/info")).containsExactly(Scope.ADMIN);
    assertThat(need("GET", "/metrics")).containsExactly(Scope.ADMIN);
    assertThat(need("GET", "/debug/state")).containsExactly(Scope.ADMIN);
    assertThat(need("HEAD", "/metrics")).containsExactly(Scope.ADMIN);
    assertThat(need("GET", "/invented")).containsExactly(Scope.ADMIN);
    assertThat(new Access(true).of("GET", "/metrics").open()).isTrue();
    assertThat(access.of("GET", "/metrics").open()).isFalse();
    assertThat(access.of("GET", "/health").open()).isTrue();
    assertThat(access.of("POST", "/health").open()).isFalse();
  }

  private Set<Scope> need(String method, String path) {
    return access.of(method, path).anyOf();
  }
}
