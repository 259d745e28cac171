package dev.wardrobe.model;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * Logits and hidden states of a tiny model, as transformers computes them.
 *
 * @param models where the model's directories are
 * @param logits where its tensors are
 * @param name the model's name
 */
record Golden(Path models, Path logits, String name) {

  /** One tensor of expected values. */
  record Case(String variant, String prompt, String what) {
    String key() {
      return variant + "/base/" + prompt + "/" + what;
    }
  }

  /** The smallest model, which is in the repository. */
  static Golden smallest() {
    Path golden = resource("/golden");
    return new Golden(golden.resolve("models"), golden.resolve("logits"), "llama_mha");
  }

  static Path resource(String name) {
    try {
      URL url = Golden.class.getResource(name);
      if (url == null) {
        throw new AssertionError("no resource " + name);
      }
      return Path.of(url.toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  /** The models of a reference folder. */
  static List<Golden> all(Path folder) throws IOException {
    Path logits = folder.resolve("logits");
    try (Stream<Path> files = Files.list(logits)) {
      return files
          .map(f -> f.getFileName().toString())
          .filter(f -> f.endsWith(".safetensors"))
          .sorted()
          .map(f -> f.substring(0, f.length() - ".safetensors".length()))
          .map(name -> new Golden(folder.resolve("models"), logits, name))
          .toList();
    }
  }

  List<Case> cases() throws IOException {
    List<Case> cases = new ArrayList<>();
    try (SafetensorsFile file = open()) {
      for (String key : file.tensors().keySet()) {
        String[] parts = key.split("/", 4);
        if (parts[1].equals("base")) {
          cases.add(new Case(parts[0], parts[2], parts[3]));
        }
      }
    }
    return cases;
  }

  /** Rows of expected values; they are the prompt's last. */
  float[][] expected(Case golden) throws IOException {
    try (SafetensorsFile file = open()) {
      TensorInfo tensor = file.tensors().get(golden.key());
      if (tensor == null) {
        throw new AssertionError("no tensor " + golden.key());
      }
      float[] values = file.floats(tensor);
      int rows = tensor.shape().getFirst().intValue();
      float[][] split = new float[rows][values.length / rows];
      for (int row = 0; row < rows; row++) {
        System.arraycopy(values, row * split[row].length, split[row], 0, split[row].length);
      }
      return split;
    }
  }

  int[] prompt(String prompt) throws IOException {
    JsonNode ids =
        new ObjectMapper()
            .readTree(logits.resolve("logits.json").toFile())
            .at("/prompts/" + name + "/" + prompt);
    int[] tokens = new int[ids.size()];
    for (int i = 0; i < tokens.length; i++) {
      tokens[i] = ids.get(i).intValue();
    }
    return tokens;
  }

  Path directory(String variant) {
    return models.resolve(variant.equals("unquantized") ? name : name + "-" + variant);
  }

  private SafetensorsFile open() throws IOException {
    return SafetensorsFile.open(logits.resolve(name + ".safetensors"));
  }

  @Override
  public String toString() {
    return name;
  }
}
