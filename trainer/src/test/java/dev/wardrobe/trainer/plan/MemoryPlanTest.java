package dev.wardrobe.trainer.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.within;

import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.trainer.backward.LoraOptions;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class MemoryPlanTest {
  private static final double MIB = 1 << 20;

  @TempDir Path folder;

  /** Sums made by hand for r = 64 on all projections, one sequence of 512. */
  @ParameterizedTest
  @CsvSource({
    "LLAMA_7B, 6.476, 3186, 500, 159.9, 1220, 310",
    "LLAMA_13B, 12.688, 6242, 625, 250.3, 1910, 485",
    "LLAMA_33B, 32.102, 15794, 812, 487.6, 3720, 945",
    "LLAMA_65B, 64.760, 31861, 1000, 799.5, 6100, 1549"
  })
  void terms_areTheFormulas(
      Shapes shape,
      double projections,
      double base,
      double embeddings,
      double trained,
      double adam,
      double adam8)
      throws Exception {
    MemoryPlan plan = plan(shape, "adamw", 512, Device.gpu("h200"));
    assertThat(plan.parameters() / 1e9).isBetween(projections, projections + 0.6);
    assertThat(plan.bytes("base") / MIB).isCloseTo(base, within(1.0));
    assertThat(plan.bytes("other_weights") / MIB).isCloseTo(embeddings, within(6.0));
    assertThat(plan.trained() / 1e6).isCloseTo(trained, within(0.06));
    assertThat(plan.bytes("adapter") / MIB).isCloseTo(8 * trained * 1e6 / MIB, within(1.0));
    assertThat(plan.bytes("optimizer") / MIB).isCloseTo(adam, within(1.0));
    assertThat(plan(shape, "adamw8bit", 512, Device.gpu("h200")).bytes("optimizer") / MIB)
        .isCloseTo(adam8, within(1.0));
    assertThat(plan.modules()).isEqualTo(7 * shape.layers);
  }

  /** What the method's authors trained on: one card each. */
  @ParameterizedTest
  @CsvSource({
    "LLAMA_65B, a6000, 38",
    "LLAMA_33B, rtx4090, 19",
    "LLAMA_7B, v100-16, 5",
    "LLAMA_7B, t4, 5"
  })
  void papersModels_fitTheirCards(Shapes shape, String card, int least) throws Exception {
    MemoryPlan plan = plan(shape, "paged_adamw_32bit", 512, Device.gpu(card));
    assertThat(plan.fits()).as("%,d bytes", plan.total()).isTrue();
    assertThat(plan.paged()).isPositive();
    assertThat(plan.total()).isGreaterThan((long) least << 30);
  }

  @ParameterizedTest
  @CsvSource({"LLAMA_65B, rtx4090", "LLAMA_33B, v100-16", "LLAMA_13B, 6GiB"})
  void otherCards_areTooSmall_whateverTheOptions(Shapes shape, String card) throws Exception {
    PlanOptions options = options("adamw", 512, 64);
    Device device = Device.gpu(card);
    assertThat(MemoryPlan.of(shape.config(folder), options, device).fits()).isFalse();
    Remedies remedies = Remedies.of(shape.config(folder), options, device);
    assertThat(remedies.alone()).isEmpty();
    assertThat(remedies.together()).isEmpty();
  }

  @Test
  void remedies_areEnough_andTheMildestOfTheirKind() throws Exception {
    Device card = Device.gpu("rtx4090");
    PlanOptions options = options("adamw", 512, 64);
    assertThat(MemoryPlan.of(Shapes.LLAMA_33B.config(folder), options, card).fits()).isFalse();
    Remedies remedies = Remedies.of(Shapes.LLAMA_33B.config(folder), options, card);
    assertThat(remedies.alone())
        .extracting(Remedies.Remedy::option)
        .containsExactly("--optim paged_adamw_32bit", "--optim adamw8bit", "--rank 32");
    assertThat(remedies.alone()).allMatch(r -> r.total() <= card.bytes());

    // Far too long for it: no option alone.
    PlanOptions large = options.withShape(4096, 4);
    Remedies several = Remedies.of(Shapes.LLAMA_33B.config(folder), large, card);
    assertThat(several.alone()).isEmpty();
    assertThat(several.together()).hasSizeGreaterThan(1);
    assertThat(several.together().getLast().total()).isLessThanOrEqualTo(card.bytes());
    assertThat(several.together())
        .extracting(Remedies.Remedy::total)
        .isSortedAccordingTo((a, b) -> Long.compare(b, a));
  }

  @Test
  void checkpointing_isWhatLongSequencesNeed() throws Exception {
    PlanOptions options = options("paged_adamw_8bit", 2048, 16).withShape(2048, 4);
    Device card = Device.gpu("rtx4090");
    MemoryPlan kept = MemoryPlan.of(Shapes.LLAMA_13B.config(folder), options.withKeep(99), card);
    MemoryPlan again = MemoryPlan.of(Shapes.LLAMA_13B.config(folder), options, card);
    assertThat(kept.fits()).isFalse();
    assertThat(again.fits()).isTrue();
    assertThat(kept.bytes("activations")).isEqualTo(40 * again.bytes("activations"));
    assertThat(kept.bytes("checkpoints")).isEqualTo(again.bytes("checkpoints"));
    assertThat(Remedies.of(Shapes.LLAMA_13B.config(folder), options.withKeep(99), card).alone())
        .extracting(Remedies.Remedy::option)
        .contains("--keep-layers 0");
  }

  @Test
  void memory_isLinearInTokens() throws Exception {
    long[] totals = new long[4];
    for (int i = 0; i < totals.length; i++) {
      totals[i] = plan(Shapes.LLAMA_7B, "adamw", 1024 * (i + 1), Device.machine()).total();
    }
    assertThat(totals[1] - totals[0]).isEqualTo(totals[2] - totals[1]).isPositive();
    assertThat(totals[2] - totals[1]).isEqualTo(totals[3] - totals[2]);
  }

  @ParameterizedTest
  @CsvSource({
    "512MiB, 536870912", "48GiB, 51539607552", "48 GB, 48000000000", "1.5g, 1610612736",
    "4096, 4096", "7b, 7", "2k, 2048", "3KB, 3000"
  })
  void bytes_asPeopleWriteThem(String text, long expected) {
    assertThat(Device.bytes("--paged-budget", text)).isEqualTo(expected);
  }

  @Test
  void gpu_isANameOrASize() {
    assertThat(Device.gpu("A100-40").bytes()).isEqualTo(40L << 30);
    assertThat(Device.gpu("48GiB")).isEqualTo(new Device("gpu of 48GiB", true, 48L << 30));
    for (String wrong : new String[] {"h300", "", "48", "-1GiB", "9999999999999TiB"}) {
      assertThatIllegalArgumentException().isThrownBy(() -> Device.gpu(wrong));
    }
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Device.bytes("--paged-budget", "much"))
        .withMessage("--paged-budget: expected bytes, such as 512MiB or 48GiB, got 'much'");
  }

  private MemoryPlan plan(Shapes shape, String optimizer, int tokens, Device device)
      throws Exception {
    return MemoryPlan.of(shape.config(folder), options(optimizer, tokens, 64), device);
  }

  private static PlanOptions options(String optimizer, int tokens, int rank) {
    return new PlanOptions(
        LoadOptions.DEFAULT,
        LoraOptions.of(rank, 16),
        tokens,
        1,
        0,
        OptimizerOptions.named(optimizer),
        PlanOptions.Budget.TENTH,
        true);
  }
}
