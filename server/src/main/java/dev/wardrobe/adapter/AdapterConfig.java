package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.plain;
import static dev.wardrobe.adapter.AdapterException.quote;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * What an {@code adapter_config.json} asks for, each of its fields accounted for.
 *
 * @param rank r of modules that no pattern names
 * @param alpha lora_alpha of modules that no pattern names
 * @param ranks rank by pattern, in the file's order
 * @param alphas alpha by pattern, in the file's order
 * @param targets which modules have A and B, or are replaced
 * @param ensureTying PEFT's ensure_weight_tying
 * @param base base_model_name_or_path, or null
 * @param fingerprint of the base it was made for, if it says so
 * @param warnings what is odd about it, but not wrong
 */
record AdapterConfig(
    int rank,
    double alpha,
    Map<PatternKey, Integer> ranks,
    Map<PatternKey, Double> alphas,
    boolean rsLora,
    boolean dora,
    boolean loraBias,
    Bias bias,
    Targets targets,
    boolean ensureTying,
    @Nullable String base,
    @Nullable String fingerprint,
    List<String> warnings) {

  static final String FILE = "adapter_config.json";
  static final int LARGEST_FILE = 4 << 20;

  /** Which of the base's biases the adapter brings. */
  enum Bias {
    NONE,
    ALL,
    LORA_ONLY
  }

  private static final int DEEPEST = 32;
  private static final int MOST_SAVED = 10_000;

  private static final JsonMapper MAPPER =
      JsonMapper.builder(
              JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(DEEPEST)
                          .maxNumberLength(64)
                          .build())
                  .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
                  .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
                  .build())
          .enable(DeserializationFeature.FAIL_ON_READING_DUP_TREE_KEY)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .build();

  /** Initializations that leave the base as it is. */
  private static final Set<String> HARMLESS_INITS =
      Set.of("gaussian", "eva", "orthogonal", "mica", "true", "false");

  private static final Set<String> TASKS =
      Set.of(
          "SEQ_CLS",
          "SEQ_2_SEQ_LM",
          "CAUSAL_LM",
          "TOKEN_CLS",
          "QUESTION_ANS",
          "FEATURE_EXTRACTION");

  /**
   * Reads a config.
   *
   * @param bytes the file's
   * @throws AdapterException if it is not strict JSON, or asks for what is not supported
   */
  static AdapterConfig parse(byte[] bytes, AdapterOptions options) throws AdapterException {
    return new Reader(object(bytes)).read(options);
  }

  private static ObjectNode object(byte[] bytes) throws AdapterException {
    try {
      String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      JsonNode node = MAPPER.readTree(text);
      if (node instanceof ObjectNode object) {
        return object;
      }
      throw invalid("expected a JSON object, got " + show(node));
    } catch (CharacterCodingException e) {
      throw invalid("expected UTF-8, got other bytes; save it again with PEFT");
    } catch (JsonProcessingException e) {
      String cause = plain(e.getOriginalMessage());
      throw invalid(
          "expected strict JSON nested at most %d deep, got: %s; save it again with PEFT"
              .formatted(DEEPEST, cause));
    }
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, FILE + ": " + message);
  }

  private static String show(@Nullable JsonNode node) {
    return node == null || node.isMissingNode() ? "nothing" : plain(node.toString());
  }

  /** The rank of the module at {@code path}. */
  int rank(String path, PythonRegex.Steps steps) {
    return first(ranks, path, rank, steps);
  }

  /** The alpha of the module at {@code path}. */
  double alpha(String path, PythonRegex.Steps steps) {
    return first(alphas, path, alpha, steps);
  }

  private static <T> T first(
      Map<PatternKey, T> patterns, String path, T otherwise, PythonRegex.Steps steps) {
    for (Map.Entry<PatternKey, T> entry : patterns.entrySet()) {
      if (entry.getKey().matches(path, steps)) {
        return entry.getValue();
      }
    }
    return otherwise;
  }

  /** Takes the fields from the object, one after the other. */
  private static final class Reader {
    private final ObjectNode json;
    private final List<String> warnings = new ArrayList<>();

    Reader(ObjectNode json) {
      this.json = json;
    }

    AdapterConfig read(AdapterOptions options) throws AdapterException {
      checkKind();
      checkKeys();
      checkInitialization();
      checkTask();
      int rank = rank("r", json.get("r"), 8, options);
      double alpha = alpha("lora_alpha", json.get("lora_alpha"), 8);
      boolean dora = flag("use_dora");
      boolean loraBias = flag("lora_bias");
      if (dora && loraBias) {
        throw invalid(
            "use_dora and lora_bias are both true; PEFT allows one of them only: train it again");
      }
      return new AdapterConfig(
          rank,
          alpha,
          ranks(options),
          alphas(),
          flag("use_rslora"),
          dora,
          loraBias,
          bias(),
          targets(),
          flag("ensure_weight_tying"),
          text("base_model_name_or_path"),
          fingerprint(),
          List.copyOf(warnings));
    }

    private void checkKind() throws AdapterException {
      JsonNode type = json.get("peft_type");
      if (type == null || !type.isTextual() || !type.textValue().equals("LORA")) {
        throw invalid(
            "peft_type: expected \"LORA\", got %s; only LoRA, rsLoRA and DoRA adapters are served"
                .formatted(show(type)));
      }
    }

    /** Refuses what is set and neither used nor inert. */
    private void checkKeys() throws AdapterException {
      for (Map.Entry<String, JsonNode> entry : json.properties()) {
        String key = entry.getKey();
        JsonNode value = entry.getValue();
        if (key.equals(PeftField.FINGERPRINT) || isEmpty(value)) {
          continue;
        }
        PeftField field = PeftField.ALL.get(key);
        if (field == null) {
          throw invalid(
              "%s: not a field of PEFT 0.21's LoraConfig, and it is set to %s; what it asks for"
                      .formatted(quote(key), show(value))
                  + " would be ignored: remove the key if the adapter does not depend on it");
        }
        if (field.use() == PeftField.Use.REFUSED && !value.equals(preset(field))) {
          throw invalid(
              "%s: expected %s, got %s; not supported (%s): train the adapter without it"
                  .formatted(key, field.preset(), show(value), field.note()));
        }
      }
    }

    private static JsonNode preset(PeftField field) {
      try {
        return MAPPER.readTree(field.preset());
      } catch (JsonProcessingException e) {
        throw new AssertionError(field.name(), e);
      }
    }

    private static boolean isEmpty(JsonNode value) {
      return value.isNull()
          || (value.isBoolean() && !value.booleanValue())
          || (value.isTextual() && value.textValue().isEmpty())
          || (value.isContainerNode() && value.isEmpty());
    }

    /** Refuses initializations that moved part of the base's weights into the adapter. */
    private void checkInitialization() throws AdapterException {
      JsonNode value = json.get("init_lora_weights");
      if (value == null || value.isNull() || value.isBoolean()) {
        return;
      }
      String name = value.isTextual() ? value.textValue().toLowerCase(Locale.ROOT) : "";
      if (HARMLESS_INITS.contains(name)) {
        return;
      }
      if (name.equals("loftq") && loftQKeptTheBase()) {
        warnings.add(
            "init_lora_weights is loftq: right only over the base's own 4-bit weights (NF4, block"
                + " size 64), since its first round leaves the base at them");
        return;
      }
      throw invalid(
          "init_lora_weights: expected one that leaves the base unchanged (true, false, gaussian,"
              + " eva, orthogonal, mica), got %s; convert it: in PEFT, save_pretrained with"
                  .formatted(show(value))
              + " path_initial_model_for_weight_conversion");
    }

    /**
     * LoftQ quantizes W, then fits A and B to the rest. In its first round the base becomes NF4(W)
     * itself; in any further one it becomes another.
     */
    private boolean loftQKeptTheBase() {
      JsonNode config = json.path("loftq_config");
      JsonNode rounds = config.path("loftq_iter");
      JsonNode bits = config.path("loftq_bits");
      return (rounds.isMissingNode() || (rounds.isInt() && rounds.intValue() == 1))
          && (bits.isMissingNode() || (bits.isInt() && bits.intValue() == 4));
    }

    private void checkTask() throws AdapterException {
      String task = text("task_type");
      if (task == null || task.equals("CAUSAL_LM")) {
        return;
      }
      if (!TASKS.contains(task)) {
        throw invalid("task_type: expected CAUSAL_LM or null, got " + quote(task));
      }
      warnings.add("task_type is " + task + "; it is served as a causal language model");
    }

    private Map<PatternKey, Integer> ranks(AdapterOptions options) throws AdapterException {
      Map<PatternKey, Integer> ranks = new LinkedHashMap<>();
      for (Map.Entry<String, JsonNode> entry : entries("rank_pattern")) {
        String where = "rank_pattern: " + quote(entry.getKey());
        ranks.put(
            pattern("rank_pattern", entry.getKey()), rank(where, entry.getValue(), -1, options));
      }
      return ranks;
    }

    private Map<PatternKey, Double> alphas() throws AdapterException {
      Map<PatternKey, Double> alphas = new LinkedHashMap<>();
      for (Map.Entry<String, JsonNode> entry : entries("alpha_pattern")) {
        String where = "alpha_pattern: " + quote(entry.getKey());
        alphas.put(
            pattern("alpha_pattern", entry.getKey()), alpha(where, entry.getValue(), Double.NaN));
      }
      return alphas;
    }

    private static PatternKey pattern(String key, String pattern) throws AdapterException {
      try {
        return new PatternKey(pattern);
      } catch (PatternSyntaxException e) {
        throw notRegex(key, pattern, e);
      }
    }

    private Set<Map.Entry<String, JsonNode>> entries(String key) throws AdapterException {
      JsonNode node = json.get(key);
      if (node == null || node.isNull()) {
        return Set.of();
      }
      if (!(node instanceof ObjectNode object)) {
        throw wrong(key, "an object", node);
      }
      return object.properties();
    }

    private static int rank(
        String where, @Nullable JsonNode node, int absent, AdapterOptions options)
        throws AdapterException {
      if (node == null && absent > 0) {
        return absent;
      }
      if (node == null
          || !node.isIntegralNumber()
          || !node.canConvertToInt()
          || node.intValue() < 1
          || node.intValue() > options.maxRank()) {
        throw wrong(where, "a rank from 1 to " + options.maxRank(), node);
      }
      return node.intValue();
    }

    private static double alpha(String where, @Nullable JsonNode node, double absent)
        throws AdapterException {
      if (node == null && !Double.isNaN(absent)) {
        return absent;
      }
      double value = node != null && node.isNumber() ? node.doubleValue() : Double.NaN;
      if (!Double.isFinite(value)) {
        throw wrong(where, "a finite number", node);
      }
      return value;
    }

    private Bias bias() throws AdapterException {
      String bias = text("bias");
      return switch (bias == null ? "none" : bias) {
        case "none" -> Bias.NONE;
        case "all" -> Bias.ALL;
        case "lora_only" -> Bias.LORA_ONLY;
        default -> throw wrong("bias", "none, all or lora_only", json.get("bias"));
      };
    }

    private Targets targets() throws AdapterException {
      JsonNode target = json.get("target_modules");
      Targets.Selection selection;
      if (target == null || target.isNull()) {
        // PEFT's choice for every family that is supported here.
        selection = new Targets.Names(Set.of("q_proj", "v_proj"));
      } else if (target.isTextual() && target.textValue().equalsIgnoreCase("all-linear")) {
        selection = new Targets.AllLinear();
      } else {
        selection = selection("target_modules", target);
      }
      Set<Integer> layers = layers();
      JsonNode layersPattern = json.get("layers_pattern");
      boolean hasPattern = layersPattern != null && !layersPattern.isNull();
      if (!(selection instanceof Targets.Names) && (layers != null || hasPattern)) {
        throw invalid(
            "%s: cannot be combined with target_modules %s; PEFT takes it with a list only"
                .formatted(
                    layers != null ? "layers_to_transform" : "layers_pattern", show(target)));
      }
      List<PythonRegex> patterns = new ArrayList<>();
      if (hasPattern) {
        for (String pattern : textOrTexts("layers_pattern", layersPattern)) {
          if (!pattern.isEmpty()) {
            patterns.add(layersPattern(pattern));
          }
        }
      }
      if (layers == null && !patterns.isEmpty()) {
        throw invalid(
            "layers_pattern: expected layers_to_transform beside it, got none; PEFT takes them"
                + " together only");
      }
      JsonNode excluded = json.get("exclude_modules");
      return new Targets(
          selection,
          excluded == null || isEmpty(excluded) ? null : selection("exclude_modules", excluded),
          saved(),
          layers,
          patterns);
    }

    private static PythonRegex layersPattern(String pattern) throws AdapterException {
      if (regex("layers_pattern", "", pattern, "").isChoice()) {
        throw invalid(
            "layers_pattern: expected no choice outside of parentheses, got %s; write (?:a|b)"
                .formatted(quote(pattern)));
      }
      return regex("layers_pattern", "(?:^|.*?\\.)", pattern, "\\.\\d+\\.");
    }

    private Targets.Selection selection(String key, JsonNode node) throws AdapterException {
      return node.isTextual()
          ? new Targets.Pattern(node.textValue(), regex(key, "", node.textValue(), ""))
          : new Targets.Names(new LinkedHashSet<>(texts(key, node)));
    }

    private Map<String, PythonRegex> saved() throws AdapterException {
      JsonNode node = json.get("modules_to_save");
      Map<String, PythonRegex> saved = new LinkedHashMap<>();
      if (node != null && !node.isNull()) {
        if (node.size() > MOST_SAVED) {
          throw wrong("modules_to_save", "at most " + MOST_SAVED + " names", node);
        }
        for (String name : texts("modules_to_save", node)) {
          if (name.isEmpty()) {
            throw wrong("modules_to_save", "names of modules", node);
          }
          saved.put(name, regex("modules_to_save", "(^|.*\\.)", name, "($|\\..*)"));
        }
      }
      return saved;
    }

    /** Layer numbers, or null for all: an empty list chooses nothing away. */
    private @Nullable Set<Integer> layers() throws AdapterException {
      JsonNode node = json.get("layers_to_transform");
      if (node == null || node.isNull()) {
        return null;
      }
      Set<Integer> layers = new LinkedHashSet<>();
      for (JsonNode each : node.isArray() ? node : List.of(node)) {
        if (!each.isIntegralNumber() || !each.canConvertToInt()) {
          throw wrong("layers_to_transform", "a layer's number or a list of them", node);
        }
        layers.add(each.intValue());
      }
      return layers;
    }

    private static PythonRegex regex(String key, String before, String pattern, String after)
        throws AdapterException {
      try {
        return PythonRegex.compile(before + pattern + after);
      } catch (PatternSyntaxException e) {
        throw notRegex(key, pattern, e);
      }
    }

    private static AdapterException notRegex(String key, String pattern, PatternSyntaxException e) {
      return invalid(
          "%s: expected a regular expression that Python's re accepts, got %s: %s"
              .formatted(key, quote(pattern), plain(e.getDescription())));
    }

    private boolean flag(String key) throws AdapterException {
      JsonNode node = json.get(key);
      if (node == null || node.isNull()) {
        return false;
      }
      if (!node.isBoolean()) {
        throw wrong(key, "true or false", node);
      }
      return node.booleanValue();
    }

    private @Nullable String fingerprint() throws AdapterException {
      String fingerprint = text(PeftField.FINGERPRINT);
      return fingerprint == null || fingerprint.isEmpty() ? null : fingerprint;
    }

    private @Nullable String text(String key) throws AdapterException {
      JsonNode node = json.get(key);
      if (node == null || node.isNull()) {
        return null;
      }
      if (!node.isTextual()) {
        throw wrong(key, "a string or null", node);
      }
      return node.textValue();
    }

    private static List<String> textOrTexts(String key, JsonNode node) throws AdapterException {
      return node.isTextual() ? List.of(node.textValue()) : texts(key, node);
    }

    private static List<String> texts(String key, JsonNode node) throws AdapterException {
      List<String> texts = new ArrayList<>();
      for (JsonNode each : node) {
        if (!each.isTextual()) {
          throw wrong(key, "a list of strings", node);
        }
        texts.add(each.textValue());
      }
      if (!node.isArray()) {
        throw wrong(key, "a list of strings", node);
      }
      return texts;
    }

    private static AdapterException wrong(String key, String expected, @Nullable JsonNode got) {
      return invalid("%s: expected %s, got %s".formatted(key, expected, show(got)));
    }
  }
}
