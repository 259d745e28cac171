package dev.wardrobe.telemetry;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.telemetry.AdapterTraffic.Row;
import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.telemetry.RequestReport.Operation;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class AdapterTrafficTest {
  private static RequestReport report(String... names) {
    return new RequestReport(
        "id",
        new Origin("http", null, null),
        Operation.GENERATE,
        "",
        List.of(names),
        List.of(names).stream().map(name -> new Answering(name, "sha256:" + name)).toList(),
        "OK",
        "stop",
        null,
        3,
        0,
        2,
        10,
        1,
        1,
        2,
        3,
        4,
        5,
        6,
        0,
        0);
  }

  private static Map<String, Row> rows(AdapterTraffic traffic) {
    Map<String, Row> rows = new HashMap<>();
    traffic.rows().forEach(row -> rows.put(row.adapter(), row));
    return rows;
  }

  @Test
  void names_areBounded_andNothingIsLost() {
    AdapterTraffic traffic = new AdapterTraffic(10);
    Random random = new Random(7);
    long before = 0;
    for (int i = 0; i < 20_000; i++) {
      traffic.add(report("a" + random.nextInt(5000)));
      if (i % 500 == 0) {
        long other = rows(traffic).get(AdapterTraffic.OTHER).requests();
        assertThat(other).isGreaterThanOrEqualTo(before);
        before = other;
      }
    }
    assertThat(traffic.rows()).hasSize(12);
    assertThat(traffic.rows().stream().mapToLong(Row::requests).sum()).isEqualTo(20_000);
    assertThat(traffic.rows().stream().mapToLong(Row::tokens).sum()).isEqualTo(40_000);
  }

  @Test
  void traffic_earnsAPlace_evenLate() {
    AdapterTraffic traffic = new AdapterTraffic(4);
    for (int i = 0; i < 400; i++) {
      traffic.add(report("early" + i % 4));
    }
    for (int i = 0; i < 3000; i++) {
      traffic.add(report(i % 2 == 0 ? "hot" : "once" + i));
    }
    Map<String, Row> rows = rows(traffic);
    assertThat(rows).containsKey("hot");
    assertThat(rows.get("hot").requests()).isBetween(700L, 1500L);
  }

  @Test
  void base_andMixtures() {
    AdapterTraffic traffic = new AdapterTraffic(4);
    traffic.add(report());
    traffic.add(report("x", "y"));
    Map<String, Row> rows = rows(traffic);
    assertThat(rows.get(AdapterTraffic.BASE).requests()).isEqualTo(1);
    assertThat(rows.get("x").promptTokens()).isEqualTo(3);
    assertThat(rows.get("y").tokens()).isEqualTo(2);
    assertThat(rows.get(AdapterTraffic.OTHER).requests()).isZero();
  }
}
