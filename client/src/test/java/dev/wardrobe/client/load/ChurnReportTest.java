package dev.wardrobe.client.load;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ChurnReportTest {
  private static final ChurnReport.Findings NONE = new ChurnReport.Findings(0, List.of());
  private static final ChurnReport.Findings ONE = new ChurnReport.Findings(1, List.of("x"));

  private static ChurnReport report(
      ChurnReport.Findings wrong,
      ChurnReport.Findings lost,
      ChurnReport.Findings failed,
      List<Long> resident,
      List<String> left) {
    return new ChurnReport(9, 0, 0, 0, wrong, lost, failed, Map.of(), 0, 1, resident, left);
  }

  private static List<Long> growing(long from, long by) {
    List<Long> looks = new ArrayList<>();
    for (int i = 0; i < 100; i++) {
      looks.add((from + i * by / 100) << 20);
    }
    return looks;
  }

  @Test
  void passed_onlyIfNothingIsAmiss() {
    assertThat(report(NONE, NONE, NONE, List.of(), List.of()).passed()).isTrue();
    assertThat(report(ONE, NONE, NONE, List.of(), List.of()).passed()).isFalse();
    assertThat(report(NONE, ONE, NONE, List.of(), List.of()).passed()).isFalse();
    assertThat(report(NONE, NONE, ONE, List.of(), List.of()).passed()).isFalse();
    assertThat(report(NONE, NONE, NONE, List.of(), List.of("1 running")).passed()).isFalse();
    assertThat(report(NONE, NONE, NONE, growing(1000, 400), List.of()).passed()).isFalse();
  }

  @Test
  void memory_isFlatWithinAMargin() {
    assertThat(report(NONE, NONE, NONE, growing(1000, 400), List.of()).memoryFlat()).isFalse();
    assertThat(report(NONE, NONE, NONE, growing(1000, 50), List.of()).memoryFlat()).isTrue();
    // What is small may grow by a little, in which a fresh JVM's heap settles.
    assertThat(report(NONE, NONE, NONE, growing(100, 30), List.of()).memoryFlat()).isTrue();
    assertThat(report(NONE, NONE, NONE, growing(100, 90), List.of()).memoryFlat()).isFalse();
    // Much in the first third alone is what caches do.
    List<Long> early = new ArrayList<>(growing(100, 2000).subList(0, 20));
    early.addAll(growing(700, 0).subList(0, 80));
    assertThat(report(NONE, NONE, NONE, early, List.of()).memoryFlat()).isTrue();
    assertThat(report(NONE, NONE, NONE, List.of(1L, 900L << 20), List.of()).memoryWatched())
        .isFalse();
  }

  @Test
  void name_mayBeEitherWhileItChanges() {
    AskedName name = new AskedName("n", "one");
    long before = System.nanoTime();
    assertThat(name.between(before, System.nanoTime())).containsExactly("one");
    name.changing("two");
    long during = System.nanoTime();
    assertThat(name.between(during, System.nanoTime())).containsExactlyInAnyOrder("one", "two");
    name.changed("two");
    long after = System.nanoTime() + 1;
    assertThat(name.between(after, after + 5)).containsExactly("two");
    assertThat(name.between(before, during)).containsExactlyInAnyOrder("one", "two");
    name.changing(AskedName.NOTHING);
    name.changed(AskedName.NOTHING);
    assertThat(name.between(after, System.nanoTime() + 1)).contains("two", AskedName.NOTHING);
    assertThat(name.now()).isEqualTo(AskedName.NOTHING);
    assertThat(name.between(before, before)).containsExactly("one");
  }

  @Test
  void catalogue_knowsWhoseAnAnswerIs() {
    Catalogue catalogue = new Catalogue();
    catalogue.add("", List.of(List.of(1, 2, 3, 4), List.of(9, 9, 9, 9)));
    catalogue.add("sha256:a", List.of(List.of(1, 2, 3, 5), List.of(8, 9, 9, 9)));
    assertThat(catalogue.answer("sha256:a", 1, 2)).containsExactly(8, 9);
    assertThat(catalogue.whose(0, List.of(1, 2, 3, 5))).isEqualTo("sha256:a");
    assertThat(catalogue.whose(1, List.of(9))).isEqualTo("the base");
    assertThat(catalogue.whose(0, List.of(7))).isEmpty();
    assertThat(catalogue.differ(2, 4)).isTrue();
    assertThat(catalogue.differ(2, 3)).isFalse();
  }

  @Test
  void set_isReadOrRefused(@TempDir Path folder) throws IOException {
    assertThatThrownBy(() -> CanarySet.read(folder))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("--canaries");
    Path file = folder.resolve("wardrobe-bench.json");
    Files.writeString(file, "{\"count\": 3}");
    assertThatThrownBy(() -> CanarySet.read(folder)).hasMessageContaining("--canaries");
    Files.writeString(file, "{");
    assertThatThrownBy(() -> CanarySet.read(folder)).hasMessageContaining("expected JSON");
    Files.writeString(file, "{\"count\": 3, \"prompts\": [[1, 2], [3]]}");
    CanarySet set = CanarySet.read(folder);
    assertThat(set.prompts()).containsExactly(List.of(1, 2), List.of(3));
    assertThat(set.name(2)).isEqualTo("a0002");
  }
}
