package dev.wardrobe.trainer.report;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.StringReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;
import org.w3c.dom.NodeList;
import org.xml.sax.InputSource;

final class PageTest {
  private static Document parse(String html) throws Exception {
    // But for the type and two tags without an end, it is XML too.
    String xml = html.replace("<!doctype html>", "").replaceAll("<meta ([^>]*)>", "<meta $1/>");
    return DocumentBuilderFactory.newInstance()
        .newDocumentBuilder()
        .parse(new InputSource(new StringReader(xml)));
  }

  private static Page page(List<StepMetrics> metrics, List<Answer> samples) {
    return new Page(
        "Adapter <&\"of\" x",
        Map.of("Loss", "1.5"),
        metrics,
        samples,
        Map.of("Digest", "abc"),
        Map.of("lr", "2e-4"));
  }

  @Test
  void html_isWellFormedAndWhole() throws Exception {
    List<StepMetrics> metrics = new ArrayList<>();
    metrics.add(StepLinesTest.metrics(0, Double.NaN).withEvaluation(5));
    for (int step = 1; step <= 3000; step++) {
      StepMetrics one = StepLinesTest.metrics(step, 4 - step / 1000.0);
      metrics.add(step % 100 == 0 ? one.withEvaluation(5 - step / 1000.0) : one);
    }
    String html =
        page(metrics, List.of(new Answer(10, 0, "Say <b>", "no\u0000 & \uD800 <i>"))).html();
    Document document = parse(html);
    NodeList figures = document.getElementsByTagName("figure");
    assertThat(figures.getLength()).isEqualTo(5);
    assertThat(document.getElementsByTagName("circle").getLength()).isEqualTo(31);
    assertThat(html)
        .contains("Adapter &lt;&amp;&quot;of&quot; x")
        .contains("no\ufffd &amp; \ufffd &lt;i&gt;")
        .contains("<th>lr</th><td class=\"text\">2e-4</td>")
        .doesNotContain("NaN")
        .doesNotContain("http");
  }

  @Test
  void html_ofNothing_isAPage() throws Exception {
    assertThat(parse(page(List.of(), List.of()).html()).getElementsByTagName("figure").getLength())
        .isZero();
  }

  @Test
  void html_ofOneStep_hasCurves() throws Exception {
    String html = page(List.of(StepLinesTest.metrics(1, 0)), List.of()).html();
    assertThat(parse(html).getElementsByTagName("figure").getLength()).isEqualTo(5);
    assertThat(html).doesNotContain("NaN").doesNotContain("Infinity");
  }
}
