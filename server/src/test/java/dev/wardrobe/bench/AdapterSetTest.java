package dev.wardrobe.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.model.ModelConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class AdapterSetTest {
  private static final ModelConfig CONFIG = Shape.TINY.config();

  @TempDir Path temp;

  private static TreeMap<String, Integer> files(Path folder) throws IOException {
    TreeMap<String, Integer> hashes = new TreeMap<>();
    try (Stream<Path> all = Files.walk(folder)) {
      for (Path file : all.filter(Files::isRegularFile).toList()) {
        hashes.put(folder.relativize(file).toString(), Arrays.hashCode(Files.readAllBytes(file)));
      }
    }
    return hashes;
  }

  @Test
  void sameSeed_sameBytes_andNoTwoAlike() throws IOException {
    List<Integer> ranks = List.of(2, 4, 8);
    AdapterSet.make(temp.resolve("one"), CONFIG, 12, 7, 0.5, ranks);
    AdapterSet.make(temp.resolve("two"), CONFIG, 12, 7, 0.5, ranks);
    AdapterSet.make(temp.resolve("other"), CONFIG, 12, 8, 0.5, ranks);
    TreeMap<String, Integer> one = files(temp.resolve("one"));
    assertThat(one).hasSize(25).containsKeys("a0000/adapter_config.json", AdapterSet.FILE);
    assertThat(files(temp.resolve("two"))).isEqualTo(one);

    List<Integer> weights = new ArrayList<>();
    for (TreeMap<String, Integer> set : List.of(one, files(temp.resolve("other")))) {
      set.forEach(
          (name, hash) -> {
            if (name.endsWith(".safetensors")) {
              weights.add(hash);
            }
          });
    }
    assertThat(weights).hasSize(24).doesNotHaveDuplicates();
  }

  @Test
  void ranks_areDealtOutEvenly() throws IOException {
    AdapterSet set = AdapterSet.make(temp.resolve("set"), CONFIG, 12, 5, 1, List.of(1, 2, 4));
    List<Long> sizes = new ArrayList<>();
    for (int i = 0; i < 12; i++) {
      sizes.add(Files.size(set.folder().resolve(set.name(i)).resolve("adapter_model.safetensors")));
    }
    for (int i = 0; i < 12; i += 3) {
      assertThat(sizes.subList(i, i + 3))
          .containsExactlyInAnyOrderElementsOf(sizes.subList(0, 3))
          .doesNotHaveDuplicates();
    }
    assertThat(sizes.subList(0, 3)).isNotEqualTo(sizes.subList(3, 6));
  }

  @Test
  void remake_changesOneAdapter() throws IOException {
    AdapterSet set = AdapterSet.make(temp.resolve("set"), CONFIG, 3, 1, 1, List.of(4));
    TreeMap<String, Integer> before = files(set.folder());
    set.remake(CONFIG, 1);
    TreeMap<String, Integer> after = files(set.folder());
    assertThat(after.get("a0001/adapter_model.safetensors"))
        .isNotEqualTo(before.get("a0001/adapter_model.safetensors"));
    after.put("a0001/adapter_model.safetensors", before.get("a0001/adapter_model.safetensors"));
    assertThat(after).isEqualTo(before);
  }

  @Test
  void folderThatIsNotEmpty_isRefusedAndLeftAlone() throws IOException {
    Files.writeString(temp.resolve("thesis.txt"), "mine");
    assertThatThrownBy(() -> AdapterSet.make(temp, CONFIG, 2, 1, 1, List.of(4)))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("thesis.txt")
        .hasMessageContaining("empty folder");
    assertThat(files(temp)).containsOnlyKeys("thesis.txt");
  }

  @Test
  void remove_takesWhatWasMadeAlone() throws IOException {
    Path folder = temp.resolve("set");
    AdapterSet.make(folder, CONFIG, 3, 1, 1, List.of(4));
    Files.writeString(folder.resolve("a0001/notes.txt"), "mine");
    Files.createDirectory(folder.resolve("a0099"));
    // As if it had been interrupted.
    Files.delete(folder.resolve("a0002/adapter_model.safetensors"));
    assertThat(AdapterSet.read(folder).remove()).containsExactly("a0001", "a0099");
    assertThat(files(folder)).containsOnlyKeys("a0001/notes.txt");
    assertThatThrownBy(() -> AdapterSet.read(folder))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("wardrobe bench adapters");

    Path second = temp.resolve("second");
    AdapterSet.make(second, CONFIG, 3, 1, 1, List.of(4));
    assertThat(AdapterSet.read(second).remove()).isEmpty();
    assertThat(second).doesNotExist();
  }

  @Test
  void read_refusesWhatIsNoSet() throws IOException {
    Path file = temp.resolve(AdapterSet.FILE);
    Files.writeString(file, "{\"count\": 99999999}");
    assertThatThrownBy(() -> AdapterSet.read(temp)).hasMessageContaining("count of 1 to 10000");
    Files.writeString(file, "{\"count\": ");
    assertThatThrownBy(() -> AdapterSet.read(temp)).hasMessageContaining("expected JSON");
  }

  @Test
  void prompts_areKept() throws IOException {
    AdapterSet set = AdapterSet.make(temp.resolve("set"), CONFIG, 1, 1, 1, List.of(4));
    set.tellApart(List.of(List.of(1, 2), List.of(3)));
    assertThat(AdapterSet.read(set.folder()).prompts()).containsExactly(List.of(1, 2), List.of(3));
  }

  @Test
  void ranks_areOneOrAListOrARange() {
    assertThat(AdapterSet.ranks("8")).containsExactly(8);
    assertThat(AdapterSet.ranks("8, 24")).containsExactly(8, 24);
    assertThat(AdapterSet.ranks("8..64")).containsExactly(8, 16, 32, 64);
    assertThat(AdapterSet.ranks("6..7")).isNull();
    assertThat(AdapterSet.ranks("0")).isNull();
    assertThat(AdapterSet.ranks("8,")).isNull();
    assertThat(AdapterSet.ranks("..")).isNull();
  }
}
