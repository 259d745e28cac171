package dev.wardrobe.adapter;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A field of PEFT 0.21's {@code LoraConfig}, and what is made of it here. A key that is none of
 * these is refused unless its value is empty (null, false, "", [] or {}).
 *
 * @param name the key in {@code adapter_config.json}
 * @param use what is made of it
 * @param preset the value that PEFT gives it when nothing is said, as JSON
 * @param note how it is used, or why it is not
 */
record PeftField(String name, Use use, String preset, String note) {

  /** What is made of a field. */
  enum Use {
    /** It decides what the adapter does. */
    USED,
    /** It says nothing about what the adapter does once trained; any value is accepted. */
    INERT,
    /** Empty or preset, else the adapter is refused. */
    REFUSED
  }

  /** The key of ours, beside PEFT's, that may hold the base's fingerprint. */
  static final String FINGERPRINT = "wardrobe_base_fingerprint";

  /** All fields, in the order of their names. */
  static final Map<String, PeftField> ALL =
      byName(
          List.of(
              refused("alora_invocation_tokens", "null", "would switch the adapter on in mid-text"),
              used("alpha_pattern", "{}", "alpha by module; the first key that matches"),
              refused("arrow_config", "null", "routes between adapters"),
              inert("auto_mapping", "null", "the base's Python class"),
              used("base_model_name_or_path", "null", "another name than the base's warns"),
              used("bias", "\"none\"", "none, all or lora_only"),
              inert("corda_config", "null", "see init_lora_weights"),
              used("ensure_weight_tying", "false", "refused where it would tie something"),
              inert("eva_config", "null", "how A began"),
              used("exclude_modules", "null", "list or regular expression"),
              refused("fan_in_fan_out", "false", "no supported base stores weights transposed"),
              inert("inference_mode", "false", "training or not"),
              used(
                  "init_lora_weights",
                  "true",
                  "pissa, olora, corda, lora_ga and loftq of several rounds changed the base:"
                      + " refused"),
              refused("kasa_config", "null", "changes the base"),
              refused("layer_replication", "null", "makes another model of the base"),
              used("layers_pattern", "null", "with layers_to_transform"),
              used("layers_to_transform", "null", "layer numbers; exact names are not filtered"),
              used("loftq_config", "{}", "with init_lora_weights loftq"),
              used("lora_alpha", "8", "scale = alpha / r, or alpha / √r with use_rslora"),
              used("lora_bias", "false", "a bias on B, scaled like B·A·x"),
              inert("lora_dropout", "0.0", "training only"),
              inert("lora_ga_config", "null", "see init_lora_weights"),
              refused("megatron_config", "null", "another kind of layers"),
              inert("megatron_core", "\"megatron.core\"", "with megatron_config"),
              used("modules_to_save", "null", "full replacements of unquantized modules"),
              refused("monteclora_config", "null", "samples its weights"),
              used("peft_type", "null", "must be LORA"),
              inert("peft_version", "null", "who wrote it"),
              inert("qalora_group_size", "16", "with use_qalora"),
              used("r", "8", "the rank"),
              used("rank_pattern", "{}", "rank by module; the first key that matches"),
              inert("revision", "null", "of the base's name"),
              inert("runtime_config", "{\"ephemeral_gpu_offload\":false}", "dropped by PEFT too"),
              used("target_modules", "null", "list, regular expression or all-linear"),
              refused("target_parameters", "null", "parameters outside of linear modules"),
              used("task_type", "null", "another than CAUSAL_LM warns"),
              refused("trainable_token_indices", "null", "single rows of the embedding"),
              refused("use_bdlora", "null", "block-diagonal factors"),
              used("use_dora", "false", "DoRA"),
              refused("use_qalora", "false", "pools the inputs"),
              used("use_rslora", "false", "rsLoRA"),
              refused("velora_config", "null", "another forward pass in training")));

  private static PeftField used(String name, String preset, String note) {
    return new PeftField(name, Use.USED, preset, note);
  }

  private static PeftField inert(String name, String preset, String note) {
    return new PeftField(name, Use.INERT, preset, note);
  }

  private static PeftField refused(String name, String preset, String note) {
    return new PeftField(name, Use.REFUSED, preset, note);
  }

  private static Map<String, PeftField> byName(List<PeftField> fields) {
    Map<String, PeftField> all = new LinkedHashMap<>();
    fields.forEach(field -> all.put(field.name, field));
    return Collections.unmodifiableMap(all);
  }
}
