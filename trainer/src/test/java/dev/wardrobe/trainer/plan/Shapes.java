package dev.wardrobe.trainer.plan;

import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The first LLaMA's shapes, as configurations without weights. */
enum Shapes {
  LLAMA_7B(4096, 11008, 32, 32),
  LLAMA_13B(5120, 13824, 40, 40),
  LLAMA_33B(6656, 17920, 60, 52),
  LLAMA_65B(8192, 22016, 80, 64);

  final int hidden;
  final int ffn;
  final int layers;
  final int heads;

  Shapes(int hidden, int ffn, int layers, int heads) {
    this.hidden = hidden;
    this.ffn = ffn;
    this.layers = layers;
    this.heads = heads;
  }

  /** Writes {@code config.json}, and nothing else. */
  Path write(Path folder) throws IOException {
    Path directory = Files.createDirectories(folder.resolve(name()));
    Files.writeString(
        directory.resolve("config.json"),
        """
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": %d,
         "intermediate_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d,
         "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-06,
         "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "float16",
         "bos_token_id": 1, "eos_token_id": 2}
        """
            .formatted(hidden, ffn, layers, heads));
    return directory;
  }

  ModelConfig config(Path folder) throws IOException, ModelException {
    return ModelConfig.read(write(folder));
  }
}
