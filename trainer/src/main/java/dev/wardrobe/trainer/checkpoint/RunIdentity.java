package dev.wardrobe.trainer.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeSet;

/**
 * What a run's bits depend on.
 *
 * @param base the base's fingerprint, or what else identifies it
 * @param data digest of what is learned from
 * @param options that matter, by name
 */
public record RunIdentity(String base, String data, Map<String, String> options) {
  public RunIdentity {
    options = Collections.unmodifiableMap(new LinkedHashMap<>(options));
  }

  /** What of another run is different, a sentence each; none if that one can be gone on with. */
  public List<String> differences(RunIdentity other) {
    List<String> differences = new ArrayList<>();
    if (!base.equals(other.base)) {
      differences.add("the base was %s, and is %s".formatted(base, other.base));
    }
    if (!data.equals(other.data)) {
      differences.add("the data's digest was %s, and is %s".formatted(data, other.data));
    }
    TreeSet<String> names = new TreeSet<>(options.keySet());
    names.addAll(other.options.keySet());
    for (String name : names) {
      String before = options.get(name);
      String now = other.options.get(name);
      if (!Objects.equals(before, now)) {
        differences.add(
            "--%s was %s, and is %s"
                .formatted(
                    name, before == null ? "not set" : before, now == null ? "not set" : now));
      }
    }
    return differences;
  }

  ObjectNode json() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("base", base);
    json.put("data", data);
    ObjectNode all = json.putObject("options");
    options.forEach(all::put);
    return json;
  }

  static RunIdentity of(JsonNode json) {
    Map<String, String> options = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> entry : json.path("options").properties()) {
      options.put(entry.getKey(), entry.getValue().asText());
    }
    return new RunIdentity(json.path("base").asText(), json.path("data").asText(), options);
  }
}
