package dev.wardrobe.http;

import com.google.api.AnnotationsProto;
import com.google.api.HttpRule;
import com.google.protobuf.Descriptors.MethodDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.v1.AdapterProto;
import dev.wardrobe.v1.GenerationProto;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * What it takes to ask for something: the one table of methods and paths, for gRPC and HTTP. What
 * is not in it is for {@link Scope#ADMIN} alone, so that nothing new is open by oversight.
 */
final class Access {
  private static final Need INFERENCE = new Need(EnumSet.of(Scope.INFERENCE), false);
  private static final Need ADAPTERS = new Need(EnumSet.of(Scope.ADAPTERS), false);
  private static final Need ANY = new Need(EnumSet.of(Scope.INFERENCE, Scope.ADAPTERS), false);
  private static final Need ADMIN = new Need(EnumSet.of(Scope.ADMIN), false);
  private static final Need OPEN = new Need(EnumSet.noneOf(Scope.class), true);

  /** By service and method; those of JSON follow from their annotations. */
  private static final Map<String, Need> METHODS =
      Map.ofEntries(
          Map.entry("wardrobe.v1.GenerationService/Generate", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/GenerateStream", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/Chat", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/Embed", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/Tokenize", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/Detokenize", INFERENCE),
          Map.entry("wardrobe.v1.GenerationService/ModelInfo", ADMIN),
          Map.entry("wardrobe.v1.GenerationService/ListSteps", ADMIN),
          Map.entry("wardrobe.v1.AdapterService/ListAdapters", ANY),
          Map.entry("wardrobe.v1.AdapterService/GetAdapter", ANY),
          Map.entry("wardrobe.v1.AdapterService/ListVersions", ANY),
          Map.entry("wardrobe.v1.AdapterService/WatchAdapters", ANY),
          Map.entry("wardrobe.v1.AdapterService/LoadAdapter", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/UnloadAdapter", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/PublishAdapter", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/SetAlias", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/RollbackAlias", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/DeleteAlias", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/DeleteVersion", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/PinAdapter", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/UnpinAdapter", ADAPTERS),
          Map.entry("wardrobe.v1.AdapterService/ScanAdapters", ADMIN),
          // Probes have no keys; they learn whether the server is well, and nothing else.
          Map.entry("grpc.health.v1.Health/Check", OPEN),
          Map.entry("grpc.health.v1.Health/Watch", OPEN),
          Map.entry("grpc.health.v1.Health/List", OPEN),
          Map.entry("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ANY),
          Map.entry("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ANY));

  /** Routes that are no methods of a service. A path that ends in a star is that of all below. */
  private static final List<Route> ROUTES =
      List.of(
          new Route("GET", "/v1/models", INFERENCE),
          new Route("GET", "/v1/models/*", INFERENCE),
          new Route("POST", "/v1/chat/completions", INFERENCE),
          new Route("POST", "/v1/completions", INFERENCE),
          new Route("POST", "/v1/embeddings", INFERENCE),
          new Route("POST", "/tokenize", INFERENCE),
          new Route("POST", "/detokenize", INFERENCE),
          new Route("GET", "/version", ANY),
          new Route("POST", "/v1/load_lora_adapter", ADAPTERS),
          new Route("POST", "/v1/unload_lora_adapter", ADAPTERS),
          new Route("GET", "/v1/adapters:watch", ANY),
          new Route("POST", "/v1/adapters:upload", ADAPTERS),
          new Route("GET", "/metrics", ADMIN),
          new Route("GET", "/debug/*", ADMIN),
          // Files that every copy of this server has; what the page shows it asks for with a key.
          new Route("GET", "/", OPEN),
          new Route("GET", "/page/*", OPEN),
          // Probes, as above.
          new Route("GET", "/health", OPEN),
          new Route("GET", "/ping", OPEN),
          new Route("POST", "/ping", OPEN),
          new Route("GET", "/live", OPEN),
          new Route("GET", "/ready", OPEN));

  private final Map<String, Need> exact = new HashMap<>();
  private final List<Rule> rules = new ArrayList<>();

  private record Route(String method, String path, Need need) {}

  private record Rule(String method, Pattern path, Need need) {}

  /**
   * What a caller has to show.
   *
   * @param anyOf one of these scopes
   * @param open whether nothing at all
   */
  record Need(Set<Scope> anyOf, boolean open) {
    boolean isMetBy(Caller caller) {
      return open || anyOf.stream().anyMatch(caller::may);
    }

    /** For people. */
    String describe() {
      return anyOf.stream().sorted().map(Scope::id).collect(Collectors.joining(" or "));
    }
  }

  /**
   * The table.
   *
   * @param openMetrics whether /metrics is for everyone
   */
  Access(boolean openMetrics) {
    for (Route route : ROUTES) {
      Need need = openMetrics && route.path().equals("/metrics") ? OPEN : route.need();
      add(route.method(), route.path(), need);
    }
    METHODS.forEach((method, need) -> exact.put("POST /" + method, need));
    for (ServiceDescriptor service : services()) {
      for (MethodDescriptor method : service.getMethods()) {
        HttpRule rule = method.getOptions().getExtension(AnnotationsProto.http);
        String template = template(rule);
        if (template != null) {
          Need need = METHODS.get(service.getFullName() + "/" + method.getName());
          rules.add(
              new Rule(
                  rule.getPatternCase().name(), pattern(template), need == null ? ADMIN : need));
        }
      }
    }
  }

  private static List<ServiceDescriptor> services() {
    List<ServiceDescriptor> services = new ArrayList<>(AdapterProto.getDescriptor().getServices());
    services.addAll(GenerationProto.getDescriptor().getServices());
    return services;
  }

  private void add(String method, String path, Need need) {
    if (path.endsWith("*")) {
      String start = Pattern.quote(path.substring(0, path.length() - 1));
      rules.add(new Rule(method, Pattern.compile(start + ".+"), need));
    } else {
      exact.put(method + " " + path, need);
    }
  }

  private static @Nullable String template(HttpRule rule) {
    return switch (rule.getPatternCase()) {
      case GET -> rule.getGet();
      case POST -> rule.getPost();
      case PUT -> rule.getPut();
      case PATCH -> rule.getPatch();
      case DELETE -> rule.getDelete();
      default -> null;
    };
  }

  /** A path's with variables such as {@code {name}} and {@code {name=**}}. */
  private static Pattern pattern(String template) {
    StringBuilder pattern = new StringBuilder();
    for (String part : template.splitWithDelimiters("\\{[^}]*}", 0)) {
      if (!part.startsWith("{")) {
        pattern.append(Pattern.quote(part));
      } else {
        pattern.append(part.endsWith("=**}") ? ".+" : "[^/]+");
      }
    }
    return Pattern.compile(pattern.toString());
  }

  /**
   * What it takes; null if nothing is known to be there.
   *
   * @param method of HTTP; HEAD is as GET
   * @param path as it was sent, plain
   */
  @Nullable Need find(String method, String path) {
    String asked = method.equals("HEAD") ? "GET" : method;
    Need need = exact.get(asked + " " + path);
    if (need != null) {
      return need;
    }
    // Where a path could be several things, it takes what the strictest of them does.
    for (Rule rule : rules) {
      if (rule.method().equals(asked) && rule.path().matcher(path).matches()) {
        need = need == null ? rule.need() : stricter(need, rule.need());
      }
    }
    return need;
  }

  /** What meets both, or, where nothing but that does, ADMIN. */
  private static Need stricter(Need one, Need other) {
    if (one.open() || other.open()) {
      return one.open() ? other : one;
    }
    Set<Scope> both = EnumSet.copyOf(one.anyOf());
    both.retainAll(other.anyOf());
    return both.isEmpty() ? ADMIN : new Need(both, false);
  }

  /** What it takes; ADMIN where nothing is known. */
  Need of(String method, String path) {
    return Objects.requireNonNullElse(find(method, path), ADMIN);
  }
}
