package dev.wardrobe.trainer.report;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.OptionalDouble;
import org.jspecify.annotations.Nullable;

/**
 * What was measured of a step: a line of {@code metrics.jsonl}.
 *
 * @param step from 1; 0 is before the first
 * @param time milliseconds since 1970
 * @param epoch passes over the data after the step
 * @param loss mean cross-entropy of the step's targets before its update; NaN at step 0
 * @param rate that the step was taken with
 * @param norm of the gradient over all parameters, before it was clipped
 * @param tokens that went through the model since the run's first step, prompts included
 * @param tokensPerSecond of this step
 * @param memory the process's resident bytes, or 0 where the system does not say
 * @param skipped why the step changed nothing, or null
 * @param evaluation mean cross-entropy of the evaluation's targets after the step, if there was one
 */
public record StepMetrics(
    int step,
    long time,
    double epoch,
    double loss,
    double rate,
    double norm,
    long tokens,
    double tokensPerSecond,
    long memory,
    @Nullable String skipped,
    OptionalDouble evaluation)
    implements StepLine {
  /** The file's name in the output folder. */
  public static final String FILE = "metrics.jsonl";

  /** The same, with an evaluation's loss. */
  public StepMetrics withEvaluation(double evaluated) {
    return new StepMetrics(
        step,
        time,
        epoch,
        loss,
        rate,
        norm,
        tokens,
        tokensPerSecond,
        memory,
        skipped,
        OptionalDouble.of(evaluated));
  }

  /** As one JSON object; what is not finite, which JSON cannot say, is left out. */
  @Override
  public ObjectNode json() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("step", step);
    put(json, "epoch", epoch);
    put(json, "loss", loss);
    if (step > 0) {
      put(json, "lr", rate);
      put(json, "grad_norm", norm);
    }
    json.put("tokens", tokens);
    if (step > 0) {
      put(json, "tokens_per_second", Math.rint(tokensPerSecond * 100) / 100);
    }
    if (memory > 0) {
      json.put("memory", memory);
    }
    if (skipped != null) {
      json.put("skipped", skipped);
    }
    if (evaluation.isPresent()) {
      put(json, "eval_loss", evaluation.getAsDouble());
      // Of a cross-entropy: no bits hang on it.
      put(json, "eval_perplexity", StrictMath.exp(evaluation.getAsDouble()));
    }
    json.put("time", time);
    return json;
  }

  private static void put(ObjectNode json, String key, double value) {
    if (Double.isFinite(value)) {
      json.put(key, value);
    }
  }

  /** A line read back. */
  public static StepMetrics of(JsonNode json) {
    JsonNode evaluation = json.path("eval_loss");
    return new StepMetrics(
        json.path("step").intValue(),
        json.path("time").asLong(),
        json.path("epoch").asDouble(),
        json.path("loss").asDouble(Double.NaN),
        json.path("lr").asDouble(),
        json.path("grad_norm").asDouble(Double.NaN),
        json.path("tokens").asLong(),
        json.path("tokens_per_second").asDouble(),
        json.path("memory").asLong(),
        json.path("skipped").textValue(),
        evaluation.isNumber()
            ? OptionalDouble.of(evaluation.doubleValue())
            : OptionalDouble.empty());
  }
}
