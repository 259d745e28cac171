package dev.wardrobe.telemetry;

import dev.wardrobe.engine.Distribution;
import io.prometheus.metrics.model.snapshots.ClassicHistogramBuckets;
import io.prometheus.metrics.model.snapshots.CounterSnapshot;
import io.prometheus.metrics.model.snapshots.CounterSnapshot.CounterDataPointSnapshot;
import io.prometheus.metrics.model.snapshots.GaugeSnapshot;
import io.prometheus.metrics.model.snapshots.GaugeSnapshot.GaugeDataPointSnapshot;
import io.prometheus.metrics.model.snapshots.HistogramSnapshot;
import io.prometheus.metrics.model.snapshots.HistogramSnapshot.HistogramDataPointSnapshot;
import io.prometheus.metrics.model.snapshots.InfoSnapshot;
import io.prometheus.metrics.model.snapshots.Labels;
import io.prometheus.metrics.model.snapshots.MetricSnapshots;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * One scrape's metrics as they are put together. Counters are named without their {@code _total}.
 */
final class Families {
  private final Map<String, CounterSnapshot.Builder> counters = new LinkedHashMap<>();
  private final Map<String, GaugeSnapshot.Builder> gauges = new LinkedHashMap<>();
  private final MetricSnapshots.Builder others = MetricSnapshots.builder();

  /** To these labels values are added. */
  final class Labelled {
    private final Labels labels;

    private Labelled(Labels labels) {
      this.labels = labels;
    }

    /** With further labels, of names and values in turn. */
    Labelled and(String... more) {
      return new Labelled(labels.merge(Labels.of(more)));
    }

    void counter(String name, String help, double value) {
      counters
          .computeIfAbsent(name, n -> CounterSnapshot.builder().name(n).help(help))
          .dataPoint(CounterDataPointSnapshot.builder().labels(labels).value(value).build());
    }

    void counter(String name, String help, long value) {
      counter(name, help, (double) value);
    }

    void gauge(String name, String help, long value) {
      gauge(name, help, (double) value);
    }

    void gauge(String name, String help, double value) {
      gauges
          .computeIfAbsent(name, n -> GaugeSnapshot.builder().name(n).help(help))
          .dataPoint(GaugeDataPointSnapshot.builder().labels(labels).value(value).build());
    }

    void histogram(String name, String help, Distribution distribution) {
      Distribution.Snapshot values = distribution.snapshot();
      others.metricSnapshot(
          HistogramSnapshot.builder()
              .name(name)
              .help(help)
              .dataPoint(
                  HistogramDataPointSnapshot.builder()
                      .labels(labels)
                      .classicHistogramBuckets(
                          ClassicHistogramBuckets.of(values.bounds(), values.counts()))
                      .sum(values.sum())
                      .build())
              .build());
    }

    /** A fact; named without its {@code _info}. */
    void info(String name, String help, String... more) {
      others.metricSnapshot(
          InfoSnapshot.builder()
              .name(name)
              .help(help)
              .dataPoint(
                  InfoSnapshot.InfoDataPointSnapshot.builder()
                      .labels(labels.merge(Labels.of(more)))
                      .build())
              .build());
    }
  }

  /** Labels of names and values in turn. */
  Labelled with(String... labels) {
    return new Labelled(Labels.of(labels));
  }

  MetricSnapshots snapshots() {
    counters.values().forEach(counter -> others.metricSnapshot(counter.build()));
    gauges.values().forEach(gauge -> others.metricSnapshot(gauge.build()));
    return others.build();
  }
}
