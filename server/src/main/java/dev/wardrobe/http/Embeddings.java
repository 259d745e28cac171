package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.serve.Embedding;
import dev.wardrobe.serve.Served;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Pooling;
import dev.wardrobe.v1.TokenIds;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** {@code /v1/embeddings}. */
final class Embeddings {
  /** What our gRPC's fields are called here. */
  private static final Map<String, String> FIELDS = Map.of("inputs", "input", "adapter", "model");

  private final Served served;
  private final ModelNames names;

  Embeddings(Served served, ModelNames names) {
    this.served = served;
    this.names = names;
  }

  /**
   * How the vectors are written.
   *
   * @param model as it was asked for
   * @param dimensions how many of each, or null for all
   */
  private record Form(
      String model, boolean base64, @Nullable Integer dimensions, boolean normalize) {}

  void answer(Exchange exchange, Fields fields) throws FieldException {
    GenerateRequest.Builder asked = GenerateRequest.newBuilder();
    String model = GenerationFields.model(fields, names, asked);
    EmbedRequest.Builder request =
        EmbedRequest.newBuilder()
            .setId(exchange.id())
            .setAdapter(asked.getAdapter())
            .addAllAdapters(asked.getAdaptersList())
            .addAllInputs(inputs(fields));
    if (asked.hasAdapterScale()) {
      request.setAdapterScale(asked.getAdapterScale());
    }
    if (asked.hasRequestKey()) {
      request.setRequestKey(asked.getRequestKey());
    }
    Boolean special = fields.flag("add_special_tokens");
    if (special != null) {
      request.setAddSpecialTokens(special);
    }
    String pooling = fields.text("pooling");
    if (pooling != null) {
      request.setPooling(pooling(pooling));
    }
    boolean normalize = fields.flag("normalize", true);
    request.setNormalize(normalize);
    String format = fields.text("encoding_format");
    if (format != null && !format.equals("float") && !format.equals("base64")) {
      throw FieldException.of(
          "encoding_format", "expected float or base64, got \"%s\"".formatted(Fields.cut(format)));
    }
    Integer dimensions = fields.integer("dimensions");
    int hidden = served.model().config().hidden();
    if (dimensions != null && (dimensions < 1 || dimensions > hidden)) {
      throw FieldException.of(
          "dimensions",
          "expected 1 to %d, which the model has, got %d".formatted(hidden, dimensions));
    }
    fields.end();
    Form form =
        new Form(
            model == null ? names.base() : model, "base64".equals(format), dimensions, normalize);
    Embedding embedding =
        served
            .conversation()
            .embed(
                exchange.caller(), exchange.origin(), request.build(), GenerationTask.NO_DEADLINE);
    exchange.onGone(embedding::cancel);
    var _ =
        embedding
            .result()
            .whenCompleteAsync(
                (response, failure) -> {
                  if (failure != null) {
                    exchange.fail(
                        names.explain(
                            exchange.caller(),
                            Generation.unwrapped(failure),
                            model,
                            request.getAdaptersCount() > 0,
                            FIELDS));
                  } else {
                    exchange.run(() -> Generation.tell(exchange, response.getAdaptersList()));
                    exchange.answer(body(response, form));
                  }
                },
                served.workers());
  }

  private static Pooling pooling(String pooling) throws FieldException {
    return switch (pooling) {
      case "mean" -> Pooling.POOLING_MEAN;
      case "last" -> Pooling.POOLING_LAST;
      default ->
          throw FieldException.of(
              "pooling", "expected mean or last, got \"%s\"".formatted(Fields.cut(pooling)));
    };
  }

  /** A text, texts, a list of token ids, or several of them. */
  private static List<EmbedInput> inputs(Fields fields) throws FieldException {
    JsonNode input = fields.node("input");
    List<EmbedInput> inputs = new ArrayList<>();
    for (Prompt prompt : Prompt.read(input, "input")) {
      inputs.add(
          prompt.text() != null
              ? EmbedInput.newBuilder().setText(prompt.text()).build()
              : EmbedInput.newBuilder()
                  .setTokens(TokenIds.newBuilder().addAllIds(prompt.tokens()))
                  .build());
    }
    return inputs;
  }

  private ObjectNode body(EmbedResponse response, Form form) {
    ObjectNode body = JsonNodeFactory.instance.objectNode().put("object", "list");
    ArrayNode data = body.putArray("data");
    for (int i = 0; i < response.getEmbeddingsCount(); i++) {
      float[] vector = vector(response.getEmbeddings(i).getValuesList(), form);
      ObjectNode each = data.addObject().put("object", "embedding").put("index", i);
      if (form.base64()) {
        ByteBuffer bytes =
            ByteBuffer.allocate(Float.BYTES * vector.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(vector);
        each.put("embedding", Base64.getEncoder().encodeToString(bytes.array()));
      } else {
        ArrayNode values = each.putArray("embedding");
        for (float value : vector) {
          values.add(value);
        }
      }
    }
    body.put("model", form.model());
    body.putObject("usage")
        .put("prompt_tokens", response.getUsage().getPromptTokens())
        .put("total_tokens", response.getUsage().getPromptTokens());
    ObjectNode figures = body.putObject("wardrobe");
    Figures.adapters(figures, response.getAdaptersList());
    figures
        .put("math", response.getUsage().getMath())
        .put("queue_ms", response.getUsage().getQueueMs())
        .put("swap_in_ms", response.getUsage().getSwapInMs())
        .put("total_ms", response.getUsage().getTotalMs());
    return body;
  }

  /** A vector, or its beginning, which has length 1 again. */
  private static float[] vector(List<Float> values, Form form) {
    int size = form.dimensions() == null ? values.size() : form.dimensions();
    float[] vector = new float[size];
    double sum = 0;
    for (int i = 0; i < size; i++) {
      vector[i] = values.get(i);
      sum += (double) vector[i] * vector[i];
    }
    if (form.normalize() && size < values.size() && sum > 0) {
      double length = Math.sqrt(sum);
      for (int i = 0; i < size; i++) {
        vector[i] = (float) (vector[i] / length);
      }
    }
    return vector;
  }
}
