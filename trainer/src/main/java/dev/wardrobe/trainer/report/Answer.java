package dev.wardrobe.trainer.report;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * What the adapter, as it was after a step, answered: a line of {@code samples.jsonl}.
 *
 * @param step from 1; 0 is before the first
 * @param time milliseconds since 1970
 */
public record Answer(int step, long time, String prompt, String answer) implements StepLine {
  /** The file's name in the output folder. */
  public static final String FILE = "samples.jsonl";

  @Override
  public ObjectNode json() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("step", step);
    json.put("prompt", prompt);
    json.put("answer", answer);
    json.put("time", time);
    return json;
  }

  /** A line read back. */
  public static Answer of(JsonNode json) {
    return new Answer(
        json.path("step").intValue(),
        json.path("time").asLong(),
        json.path("prompt").asText(),
        json.path("answer").asText());
  }
}
