package dev.wardrobe.grpc;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.api.HttpRule;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.telemetry.Origin;
import io.vertx.core.Context;
import io.vertx.core.MultiMap;
import io.vertx.core.http.HttpServerResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A gRPC method of one request and one answer as JSON over HTTP, by the {@code google.api.http}
 * annotation in its .proto file: so much of transcoding as these annotations use. Parts of the path
 * and of the query are fields of the request, and so is what the body has, which is all of it. An
 * error is {@code {"code", "status", "message"}}, under the HTTP status of its gRPC status.
 *
 * <p>(Vert.x's own transcoding does not find paths with a {@code **}, lets the body override the
 * path, and answers errors without a word.)
 */
public final class JsonMethod {
  private static final ObjectMapper MAPPER =
      new ObjectMapper()
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION);
  private static final Pattern VARIABLE = Pattern.compile("\\{([a-z_]+)(=\\*\\*)?}");

  private final String httpMethod;
  private final String template;
  private final String pattern;
  private final List<String> variables;
  private final boolean body;
  private final Call<?, ?> call;

  private JsonMethod(
      String httpMethod,
      String template,
      String pattern,
      List<String> variables,
      boolean body,
      Call<?, ?> call) {
    this.httpMethod = httpMethod;
    this.template = template;
    this.pattern = pattern;
    this.variables = variables;
    this.body = body;
    this.call = call;
  }

  static <Q extends Message, R extends Message> JsonMethod of(
      HttpRule rule, Q emptyRequest, Methods.Handler<Q, R> handler) {
    String template =
        switch (rule.getPatternCase()) {
          case GET -> rule.getGet();
          case POST -> rule.getPost();
          case DELETE -> rule.getDelete();
          default -> throw new IllegalArgumentException("not supported: " + rule);
        };
    if (rule.getAdditionalBindingsCount() > 0
        || !(rule.getBody().isEmpty() || rule.getBody().equals("*"))
        || !rule.getResponseBody().isEmpty()) {
      throw new IllegalArgumentException("not supported: " + rule);
    }
    List<String> variables = new ArrayList<>();
    StringBuilder pattern = new StringBuilder();
    Matcher matcher = VARIABLE.matcher(template);
    int from = 0;
    for (; matcher.find(); from = matcher.end()) {
      variables.add(matcher.group(1));
      pattern.append(Pattern.quote(template.substring(from, matcher.start())));
      pattern.append(matcher.group(2) == null ? "([^/]+)" : "(.+)");
    }
    pattern.append(Pattern.quote(template.substring(from)));
    return new JsonMethod(
        rule.getPatternCase().name(),
        template,
        pattern.toString(),
        variables,
        rule.getBody().equals("*"),
        new Call<>(emptyRequest, handler));
  }

  private record Call<Q extends Message, R extends Message>(
      Q emptyRequest, Methods.Handler<Q, R> handler) {

    @SuppressWarnings("unchecked") // A builder of the empty request builds such requests.
    void run(ObjectNode fields, Reply<R> reply) throws RequestException {
      Message.Builder request = emptyRequest.newBuilderForType();
      try {
        JsonFormat.parser().merge(fields.toString(), request);
      } catch (InvalidProtocolBufferException e) {
        throw RequestException.invalid(
            "%s: expected what a %s has there, got what is not: %s"
                .formatted(
                    culprit(fields),
                    emptyRequest.getDescriptorForType().getName(),
                    e.getMessage()));
      }
      handler.handle((Q) request.build(), 0, reply);
    }

    /** The field that cannot be parsed. */
    private String culprit(ObjectNode fields) {
      for (Map.Entry<String, JsonNode> field : fields.properties()) {
        ObjectNode alone = JsonNodeFactory.instance.objectNode();
        alone.set(field.getKey(), field.getValue());
        try {
          JsonFormat.parser().merge(alone.toString(), emptyRequest.newBuilderForType());
        } catch (InvalidProtocolBufferException e) {
          return field.getKey();
        }
      }
      return "the request";
    }

    void answer(
        JsonMethod method,
        Request request,
        Executor parser,
        Context context,
        HttpServerResponse response,
        Consumer<Runnable> ended) {
      Reply<R> reply = new Reply<>(context, new JsonWire<>(request.origin(), response, ended));
      Runnable answer =
          () -> {
            try {
              run(method.fields(request, this), reply);
            } catch (Throwable e) {
              reply.fail(e);
            }
          };
      try {
        parser.execute(answer);
      } catch (RejectedExecutionException e) {
        reply.fail(e);
      }
    }
  }

  /**
   * What was asked.
   *
   * @param origin how it came here
   * @param variables of the path, decoded, in the template's order
   * @param body nothing if it is empty
   */
  public record Request(Origin origin, List<String> variables, MultiMap query, String body) {}

  /** "GET", "POST" or "DELETE". */
  public String httpMethod() {
    return httpMethod;
  }

  /** The path as it is annotated. */
  public String template() {
    return template;
  }

  /** A regular expression of paths, with a group for each variable. */
  public String pattern() {
    return pattern;
  }

  public int variables() {
    return variables.size();
  }

  /**
   * Answers a request, on the event loop.
   *
   * @param parser where the request is parsed
   * @param ended told what to run when the answer has ended, or cannot be read any more
   */
  public void answer(
      Request request,
      Executor parser,
      Context context,
      HttpServerResponse response,
      Consumer<Runnable> ended) {
    call.answer(this, request, parser, context, response, ended);
  }

  private ObjectNode fields(Request request, Call<?, ?> to) throws RequestException {
    ObjectNode fields = body(request.body());
    for (Map.Entry<String, String> parameter : request.query().entries()) {
      put(fields, parameter.getKey(), parameter.getValue(), to);
    }
    for (int i = 0; i < variables.size(); i++) {
      String variable = variables.get(i);
      String value = request.variables().get(i);
      JsonNode given = fields.get(variable);
      if (given != null && !given.asText().equals(value)) {
        throw RequestException.invalid(
            "%s: the path says '%s', the request '%s'; leave one of them out"
                .formatted(variable, value, given.asText()));
      }
      fields.put(variable, value);
    }
    return fields;
  }

  private ObjectNode body(String text) throws RequestException {
    if (text.isBlank()) {
      return JsonNodeFactory.instance.objectNode();
    }
    if (!body) {
      throw RequestException.invalid(
          "%s %s takes no body: give its fields in the query".formatted(httpMethod, template));
    }
    try {
      if (MAPPER.readTree(text) instanceof ObjectNode object) {
        return object;
      }
    } catch (JsonProcessingException e) {
      throw RequestException.invalid(
          "the body: expected a JSON object, got what is no JSON: " + e.getOriginalMessage());
    }
    throw RequestException.invalid("the body: expected a JSON object, got another JSON value");
  }

  private static void put(ObjectNode fields, String name, String value, Call<?, ?> to) {
    FieldDescriptor field = to.emptyRequest().getDescriptorForType().findFieldByName(name);
    if (field == null || !field.isRepeated()) {
      fields.put(name, value);
    } else if (fields.get(name) instanceof ArrayNode values) {
      values.add(value);
    } else {
      fields.putArray(name).add(value);
    }
  }
}
