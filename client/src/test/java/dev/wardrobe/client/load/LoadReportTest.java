package dev.wardrobe.client.load;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.Usage;
import java.io.PrintWriter;
import java.io.StringReader;
import java.io.StringWriter;
import java.util.List;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;
import org.xml.sax.InputSource;

final class LoadReportTest {
  private static final long MS = 1_000_000;

  private static LoadCase plan(String name) {
    return new LoadCase(
        name,
        AdapterMix.parse("a{0..4}", "zipf"),
        8,
        0,
        new Lengths(4, 4),
        0,
        new Lengths(2, 5),
        List.of(),
        0,
        new Lengths(1, 1),
        0);
  }

  /** One request that waited for its adapter, and then so many tokens, a gap apart. */
  private static LoadRun run(LoadCase plan, int tokens, long gap, double others) {
    Observed load = new Observed(0, 1000 * MS, false);
    long last = 0;
    for (int i = 0; i < tokens; i++) {
      long now = 5 * MS + i * gap;
      load.tokens(1, 1, last, now);
      last = now;
    }
    load.finished(1, last, Usage.newBuilder().setSwapInMs(2).setPromptTokens(4).build());
    return new LoadRun(
        plan,
        1,
        load,
        new Observed(0, 1000 * MS, true),
        0,
        new Occupancy.Shares(0.05, 0.9, others),
        new ServerSeen(10, 7.5, 4.5, 3, 1 << 20, 1 << 30, 0, 0));
  }

  private static List<LoadResult> results() {
    LoadResult base = new LoadResult(plan("base"));
    base.add(0, run(base.of(), 100, 4 * MS, 0.01));
    base.add(1, run(base.of(), 200, 4 * MS, 0.01));
    base.add(2, run(base.of(), 110, 4 * MS, 0.01));
    LoadResult other = new LoadResult(plan("other <&>"));
    other.add(0, run(other.of(), 90, 5 * MS, 0.01));
    // Disturbed, then made again.
    other.add(1, run(other.of(), 10, 5 * MS, 0.5));
    other.add(1, run(other.of(), 160, 5 * MS, 0.02));
    // Disturbed to the end: its round does not count.
    other.add(2, run(other.of(), 11, 5 * MS, 0.5));
    return List.of(base, other);
  }

  @Test
  void ratio_isOfRoundsInWhichNobodyDisturbed() {
    List<LoadResult> results = results();
    double[] ratios = results.get(1).ratiosTo(results.get(0), LoadRun::tokensPerSecond);
    assertThat(ratios).containsExactly(0.8, 0.9);
    assertThat(results.get(1).ratioTo(results.get(0), LoadRun::tokensPerSecond))
        .isCloseTo(0.85, within(1e-12));
    assertThat(results.get(1).median(LoadRun::tokensPerSecond)).isEqualTo(125);
    assertThat(results.get(1).all()).hasSize(4);
    assertThat(results.get(1).counted()).hasSize(2);
  }

  @Test
  void disturbedAlone_countsAndSaysSo() {
    LoadResult result = new LoadResult(plan("noisy"));
    result.add(0, run(result.of(), 50, MS, 0.5));
    assertThat(result.undisturbed()).isFalse();
    assertThat(result.median(LoadRun::tokensPerSecond)).isEqualTo(50);
    StringWriter text = new StringWriter();
    LoadTable.all(new PrintWriter(text), List.of(result), result);
    assertThat(text.toString()).contains("ALL OF THEM DISTURBED");
  }

  @Test
  void table_hasEveryFigure() {
    List<LoadResult> results = results();
    StringWriter text = new StringWriter();
    LoadTable.all(new PrintWriter(text), results, results.get(0));
    assertThat(text.toString())
        .contains("8 streams, 5 adapters, Zipf 1.0, prompts of 4, answers of 2 to 5")
        .contains("0.850 of base (0.800 to 0.900); time between tokens, p99: 1.25 of it")
        .contains("2 of 2 requests waited for their adapter")
        .contains("7.50 sequences and 4.50 outfits")
        .contains("errors         none");
  }

  @Test
  void json_hasEveryFigure() {
    List<LoadResult> results = results();
    JsonNode root = LoadJson.of(ModelInfoResponse.getDefaultInstance(), 7, results, results.get(0));
    JsonNode other = root.at("/cases/1");
    assertThat(other.get("ratio").asDouble()).isCloseTo(0.85, within(1e-12));
    assertThat(other.at("/between_tokens_ms/p99").asDouble()).isEqualTo(5);
    assertThat(other.at("/first_token_ms/count").asInt()).isEqualTo(2);
    assertThat(other.at("/runs").size()).isEqualTo(4);
    assertThat(other.at("/runs/1/undisturbed").asBoolean()).isFalse();
    assertThat(other.at("/guest_first_token_ms/p50").isNull()).isTrue();
    assertThat(root.get("seed").asInt()).isEqualTo(7);
  }

  @Test
  void plot_isWellFormed_andShowsEachCase() throws Exception {
    String svg = LoadPlot.of("A <title>", results());
    Document document =
        DocumentBuilderFactory.newInstance()
            .newDocumentBuilder()
            .parse(new InputSource(new StringReader(svg)));
    assertThat(document.getDocumentElement().getTagName()).isEqualTo("svg");
    assertThat(svg)
        .contains("A &lt;title&gt;", "other &lt;&amp;&gt;: 8 streams")
        .doesNotContain("NaN");
    // The gaps of the last run that counts, a point each, in both timelines; a dot for each
    // maximum.
    assertThat(document.getElementsByTagName("circle").getLength()).isEqualTo(109 + 159 + 2 * 2);
  }

  @Test
  void plot_ofNothing_isStillOne() {
    LoadResult result = new LoadResult(plan("nothing"));
    result.add(0, run(result.of(), 0, MS, 0));
    assertThat(LoadPlot.of("t", List.of(result))).doesNotContain("NaN").endsWith("</svg>\n");
  }

  @Test
  void axis_isLinearOrLogarithmic_asTheValuesNeed() {
    Axis linear = Axis.of(50, 180, 0, 100);
    assertThat(linear.log()).isFalse();
    assertThat(linear.ticks()).contains(0.0, linear.most());
    assertThat(linear.at(0)).isEqualTo(0);
    assertThat(linear.at(linear.most())).isEqualTo(100);
    Axis log = Axis.of(0.1, 1000, 0, 100);
    assertThat(log.log()).isTrue();
    assertThat(log.ticks()).contains(1.0, 10.0, 100.0);
    assertThat(log.at(10) - log.at(1)).isCloseTo(log.at(100) - log.at(10), within(1e-9));
    assertThat(Axis.text(0.5)).isEqualTo("0.5");
    assertThat(Axis.text(1200)).isEqualTo("1,200");
  }

  @Test
  void occupancy_readsTheClocksLine() {
    assertThat(Occupancy.busySeconds("cpu  100 1 50 9999 7 3 4 5 0 0"))
        .isCloseTo(1.63, within(1e-12));
    assertThat(Occupancy.busySeconds("intr 5")).isNaN();
  }
}
