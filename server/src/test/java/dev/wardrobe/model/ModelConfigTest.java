package dev.wardrobe.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.safetensors.DType;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class ModelConfigTest {
  private static final String LLAMA =
      """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 144,
       "intermediate_size": 384, "num_attention_heads": 9, "num_hidden_layers": 2,
       "num_key_value_heads": 3, "vocab_size": 768, "max_position_embeddings": 512,
       "rms_norm_eps": 1e-05, "hidden_act": "silu", "attention_dropout": 0.1}
      """;
  private static final String QWEN2 =
      """
      {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 96,
       "intermediate_size": 208, "num_attention_heads": 4, "num_hidden_layers": 4,
       "num_key_value_heads": 2, "vocab_size": 512, "sliding_window": 32}
      """;

  @TempDir private Path dir;

  @Test
  void read_version4IsVersion5() throws ModelException, IOException {
    ModelConfig v4 =
        read(LLAMA, "{'rope_theta': 1e5, 'rope_scaling': null, 'torch_dtype': 'bfloat16'}");
    ModelConfig v5 =
        read(
            LLAMA,
            "{'rope_parameters': {'rope_theta': 1e5, 'rope_type': 'default'}, 'dtype': 'bfloat16',"
                + " 'head_dim': 16}");
    assertThat(v4).isEqualTo(v5);
    assertThat(v4.dtype()).isEqualTo(DType.BF16);
    assertThat(v4.rope().theta()).isEqualTo(1e5);
    assertThat(v4.headDim()).isEqualTo(16);
    assertThat(v4.epsilon()).isEqualTo(1e-5f);
  }

  @Test
  void read_absentKeysAreTransformersDefaults() throws ModelException, IOException {
    ModelConfig llama =
        read(
            LLAMA,
            "{'num_key_value_heads': null, 'max_position_embeddings': null, 'head_dim': null}");
    assertThat(llama.kvHeads()).isEqualTo(9);
    assertThat(llama.contextLength()).isEqualTo(2048);
    assertThat(llama.bos()).isEqualTo(1);
    assertThat(llama.eos()).containsExactly(2);
    assertThat(llama.tied()).isFalse();
    assertThat(llama.qkvBias()).isFalse();
    assertThat(llama.windows()).containsExactly(0, 0);
    assertThat(llama.quantization()).isNull();

    ModelConfig mistral = read(LLAMA, mistral("{'num_key_value_heads': 9}"));
    assertThat(mistral.windows()).containsExactly(4096, 4096);
    assertThat(read(LLAMA, mistral("{'sliding_window': null}")).windows()).containsExactly(0, 0);
    assertThat(read(LLAMA, mistral("{'sliding_window': 32}")).windows()).containsExactly(32, 32);
  }

  @Test
  void read_endTokens() throws ModelException, IOException {
    assertThat(read(LLAMA, "{'eos_token_id': 7}").eos()).containsExactly(7);
    assertThat(read(LLAMA, "{'eos_token_id': [7, 8]}").eos()).containsExactly(7, 8);
    assertThat(read(LLAMA, "{'eos_token_id': null}").eos()).isEmpty();
    assertThat(read(LLAMA, "{'bos_token_id': null}").bos()).isNull();
    assertThat(read(QWEN2, "{}").eos()).isEmpty();
  }

  @Test
  void read_biases() throws ModelException, IOException {
    ModelConfig llama = read(LLAMA, "{'attention_bias': true, 'mlp_bias': true}");
    assertThat(List.of(llama.qkvBias(), llama.oBias(), llama.mlpBias())).containsOnly(true);
    ModelConfig qwen2 = read(QWEN2, "{}");
    assertThat(qwen2.qkvBias()).isTrue();
    assertThat(qwen2.oBias()).isFalse();
    ModelConfig qwen3 =
        read(QWEN2, "{'architectures': ['Qwen3ForCausalLM'], 'model_type': 'qwen3'}");
    assertThat(qwen3.qkNorm()).isTrue();
    assertThat(qwen3.qkvBias()).isFalse();
    assertThat(qwen3.headDim()).isEqualTo(128);
  }

  @Test
  void read_windowsOfQwen() throws ModelException, IOException {
    assertThat(read(QWEN2, "{}").windows()).containsExactly(0, 0, 0, 0);
    assertThat(read(QWEN2, "{'use_sliding_window': true, 'max_window_layers': 1}").windows())
        .containsExactly(0, 32, 32, 32);
    assertThat(read(QWEN2, "{'use_sliding_window': true}").windows()).containsExactly(0, 0, 0, 0);
    String types =
        "'layer_types': ['full_attention', 'sliding_attention', 'full_attention',"
            + " 'sliding_attention']";
    assertThat(read(QWEN2, "{'use_sliding_window': true, " + types + "}").windows())
        .containsExactly(0, 32, 0, 32);
    assertThatThrownBy(() -> read(QWEN2, "{" + types + "}"))
        .hasMessageContaining(
            "layer_types[1] is 'sliding_attention', but sliding_window gives that layer no window");
  }

  @Test
  void read_quantization() throws ModelException, IOException {
    ModelConfig config =
        read(
            LLAMA,
            "{'quantization_config': {'quant_method': 'bitsandbytes', '_load_in_4bit': true,"
                + " 'load_in_4bit': true, 'bnb_4bit_quant_type': 'nf4',"
                + " 'bnb_4bit_use_double_quant': true, 'llm_int8_skip_modules': ['lm_head']}}");
    assertThat(config.quantization())
        .isEqualTo(new QuantizationConfig("nf4", true, List.of("lm_head")));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{'model_type': 'gemma2'} | model_type 'gemma2' is not supported; supported are llama"
            + " (LlamaForCausalLM), mistral (MistralForCausalLM), qwen2 (Qwen2ForCausalLM), qwen3"
            + " (Qwen3ForCausalLM)",
        "{'model_type': null} | model_type is missing; supported are llama",
        "{'model_type': 7} | model_type: expected a string, got 7",
        "{'model_type': 'qwen2_moe'} | 'qwen2_moe' is not supported",
        "{'architectures': ['LlamaModel']} | architectures [LlamaModel] is not supported",
        "{'architectures': ['MistralForCausalLM']} | architectures [MistralForCausalLM]",
        "{'architectures': 'LlamaForCausalLM'} | architectures: expected a list of strings",
        "{'hidden_act': 'gelu'} | hidden_act \"gelu\" is not supported; expected \"silu\"",
        "{'pretraining_tp': 2} | pretraining_tp 2 is not supported",
        "{'partial_rotary_factor': 0.5} | partial_rotary_factor 0.5 is not supported",
        "{'num_local_experts': 8} | num_local_experts 8 is not supported",
        "{'num_experts': 60} | num_experts 60 is not supported",
        "{'final_logit_softcapping': 30.0} | final_logit_softcapping 30.0 is not supported",
        "{'is_causal': false} | is_causal false is not supported",
        "{'auto_map': {'AutoModelForCausalLM': 'm.M'}} | auto_map asks for the model's own code",
        "{'sliding_window': 128} | sliding_window 128 is not supported for model_type 'llama'",
        "{'layer_types': ['full_attention']} | layer_types has 1 entries, but num_hidden_layers is"
            + " 2",
        "{'layer_types': ['full_attention', 'linear_attention']} | 'linear_attention' is not"
            + " supported",
        "{'layer_types': ['full_attention', 'sliding_attention']} | layer_types[1]",
        "{'hidden_size': null} | hidden_size is missing; expected an integer from 1 to",
        "{'hidden_size': 0} | hidden_size: expected an integer from 1 to 4194304, got 0",
        "{'hidden_size': -144} | hidden_size: expected an integer",
        "{'hidden_size': 144.5} | hidden_size: expected an integer",
        "{'hidden_size': '144'} | hidden_size: expected an integer",
        "{'hidden_size': 99999999999999999999} | hidden_size: expected an integer",
        "{'hidden_size': 145} | hidden_size 145 is not a multiple of num_attention_heads 9",
        "{'num_hidden_layers': 1000000} | num_hidden_layers: expected an integer from 1 to 4096",
        "{'num_key_value_heads': 2} | num_attention_heads 9 is not a multiple of"
            + " num_key_value_heads 2",
        "{'head_dim': 15} | a head of 15 elements cannot be rotated",
        "{'head_dim': 4000000} | num_attention_heads 9 times head_dim 4000000 exceeds",
        "{'vocab_size': true} | vocab_size: expected an integer",
        "{'max_position_embeddings': 1e5} | max_position_embeddings: expected an integer",
        "{'rms_norm_eps': -1} | rms_norm_eps: expected a number",
        "{'rms_norm_eps': 1e999} | rms_norm_eps: expected a number",
        "{'eos_token_id': '2'} | eos_token_id: expected a token id",
        "{'eos_token_id': [2, -1]} | eos_token_id: expected a token id",
        "{'tie_word_embeddings': 'yes'} | tie_word_embeddings: expected true or false",
        "{'dtype': 'float8_e4m3fn'} | dtype 'float8_e4m3fn' is not supported; supported are"
            + " float32",
        "{'quantization_config': {'quant_method': 'gptq', 'bits': 4}} | quant_method 'gptq' is not"
            + " supported; supported is bitsandbytes in 4 bits",
        "{'quantization_config': {'quant_method': 'awq'}} | quant_method 'awq' is not supported",
        "{'quantization_config': {'quant_method': 'fp8'}} | quant_method 'fp8' is not supported",
        "{'quantization_config': {'quant_method': 'compressed-tensors'}} | 'compressed-tensors'",
        "{'quantization_config': {'quant_method': 'bitsandbytes', 'load_in_8bit': true}} |"
            + " bitsandbytes in 8 bits is not supported",
        "{'quantization_config': {'bits': 4}} | quant_method '(none)' is not supported",
        "{'quantization_config': {'quant_method': 'bitsandbytes', 'load_in_4bit': true,"
            + " 'bnb_4bit_quant_type': 'int4'}} | bnb_4bit_quant_type 'int4' is not supported",
        "{'quantization_config': []} | quantization_config: expected an object",
      })
  void read_refused(String change, String message) {
    assertThatThrownBy(() -> read(LLAMA, change))
        .isInstanceOf(ModelException.class)
        .hasMessageStartingWith("config.json: ")
        .hasMessageContaining(message.strip());
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "[]", "{", "{\"a\": NaN}", "{\"a\": 1, \"a\": 2}", "{} {}", "nul"})
  void read_notAnObject(String json) throws IOException {
    Files.writeString(dir.resolve("config.json"), json);
    assertThatThrownBy(() -> ModelConfig.read(dir))
        .isInstanceOf(ModelException.class)
        .hasMessageStartingWith("config.json: ");
  }

  @Test
  void read_hostileJson() throws IOException {
    Path file = dir.resolve("config.json");
    Files.writeString(file, "{\"a\":".repeat(100_000));
    assertThatThrownBy(() -> ModelConfig.read(dir)).isInstanceOf(ModelException.class);
    Files.writeString(file, "{\"hidden_size\": " + "9".repeat(100_000) + "}");
    assertThatThrownBy(() -> ModelConfig.read(dir)).isInstanceOf(ModelException.class);
    Files.write(file, new byte[] {'{', '"', (byte) 0xff, '"', ':', '1', '}'});
    assertThatThrownBy(() -> ModelConfig.read(dir)).hasMessage("config.json: not UTF-8");
    Files.write(file, new byte[(16 << 20) + 1]);
    assertThatThrownBy(() -> ModelConfig.read(dir)).hasMessageContaining("expected at most");
  }

  @Test
  void read_noModel() {
    assertThatThrownBy(() -> ModelConfig.read(dir)).hasMessageContaining("no config.json");
    assertThatThrownBy(() -> ModelConfig.read(dir.resolve("absent")))
        .hasMessageContaining("expected a model directory with config.json, got nothing");
  }

  private static String mistral(String more) {
    return more.replaceFirst(
        "\\{", "{'model_type': 'mistral', 'architectures': ['MistralForCausalLM'], ");
  }

  private ModelConfig read(String base, String change) throws ModelException, IOException {
    ObjectNode config = (ObjectNode) Fields.MAPPER.readTree(base);
    byte[] bytes = change.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
    config.setAll((ObjectNode) Fields.MAPPER.readTree(bytes));
    Files.writeString(dir.resolve("config.json"), config.toString());
    return ModelConfig.read(dir);
  }
}
