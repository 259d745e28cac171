package dev.wardrobe.client.cli;

import com.google.protobuf.Timestamp;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.ListVersionsResponse;
import dev.wardrobe.v1.Shadow;
import dev.wardrobe.v1.ShadowTraffic;
import dev.wardrobe.v1.Share;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** Adapters, aliases and events as people read them, a line each. */
final class AdapterTable {
  private static final DateTimeFormatter TIME =
      DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss", Locale.ROOT)
          .withZone(ZoneId.systemDefault());
  private static final int WIDEST_NAME = 48;

  private AdapterTable() {}

  /** One line each, under a heading. */
  static List<String> of(List<Adapter> adapters) {
    int width =
        Math.min(
            WIDEST_NAME, adapters.stream().mapToInt(a -> a.getName().length()).max().orElse(0));
    String format = "%-" + Math.max(12, width) + "s  %-7s %5s %10s  %-8s %6s  %s";
    List<String> lines = new ArrayList<>();
    lines.add(
        String.format(
            Locale.ROOT,
            format,
            "NAME",
            "KIND",
            "RANK",
            "KiB",
            "STATE",
            "IN USE",
            "DIGEST, ALIASES, PROBLEMS"));
    for (Adapter adapter : adapters) {
      lines.add(
          String.format(
                  Locale.ROOT,
                  format,
                  adapter.getName(),
                  adapter.getKind(),
                  adapter.getRank() == 0 ? "" : adapter.getRank(),
                  adapter.getBytes() == 0
                      ? ""
                      : String.format(Locale.ROOT, "%,d", adapter.getBytes() / 1024),
                  state(adapter),
                  adapter.getInUse() == 0 ? "" : adapter.getInUse(),
                  details(adapter))
              .stripTrailing());
    }
    return lines;
  }

  private static String state(Adapter adapter) {
    return !adapter.getProblem().isEmpty()
        ? "broken"
        : adapter.getPinned() ? "pinned" : adapter.getResident() ? "resident" : "";
  }

  private static String details(Adapter adapter) {
    List<String> parts = new ArrayList<>();
    if (!adapter.getDigest().isEmpty()) {
      parts.add(adapter.getDigest());
    }
    if (adapter.getAliasesCount() > 0) {
      parts.add("= " + String.join(", ", adapter.getAliasesList()));
    }
    if (!adapter.getProblem().isEmpty()) {
      parts.add(adapter.getProblem());
    }
    return String.join("  ", parts);
  }

  /** All that is known of one. */
  static List<String> one(Adapter adapter) {
    List<String> lines = new ArrayList<>();
    add(lines, "name", adapter.getName());
    add(lines, "digest", adapter.getDigest());
    add(lines, "aliases", String.join(", ", adapter.getAliasesList()));
    add(lines, "source", adapter.getSource());
    add(lines, "published", time(adapter.hasPublished() ? adapter.getPublished() : null));
    add(lines, "kind", adapter.getKind());
    add(lines, "rank", number(adapter.getRank()));
    add(lines, "modules", number(adapter.getModules()));
    add(lines, "parameters", number(adapter.getParameters()));
    add(lines, "bytes", number(adapter.getBytes()));
    add(
        lines,
        "state",
        adapter.getPinned() && !adapter.getResident()
            ? "pinned, but not resident: there was no room yet"
            : state(adapter));
    add(lines, "in use", number(adapter.getInUse()));
    add(lines, "requests", number(adapter.getRequests()));
    add(lines, "problem", adapter.getProblem());
    adapter.getWarningsList().forEach(warning -> add(lines, "warning", warning));
    return lines;
  }

  private static void add(List<String> lines, String what, String value) {
    if (!value.isEmpty()) {
      lines.add(String.format(Locale.ROOT, "%-11s %s", what, value));
    }
  }

  private static String number(long number) {
    return number == 0 ? "" : String.format(Locale.ROOT, "%,d", number);
  }

  /** The versions of a name, then its aliases with what came of them. */
  static List<String> versions(ListVersionsResponse response) {
    List<String> lines = new ArrayList<>(of(response.getVersionsList()));
    for (Alias alias : response.getAliasesList()) {
      lines.add("");
      lines.add(
          "%s@%s is %s, since %s"
              .formatted(
                  alias.getName(),
                  alias.getAlias(),
                  target(alias.getSharesList(), alias.hasShadow() ? alias.getShadow() : null),
                  time(alias.getChanged())));
      for (Share share : alias.getSharesList()) {
        lines.add(
            String.format(
                Locale.ROOT,
                "  requests answered by %s: %,d",
                share.getVersion(),
                share.getRequests()));
      }
      if (alias.hasShadow()) {
        shadow(lines, alias.getShadow());
      }
      for (Alias.Past past : alias.getHistoryList()) {
        lines.add(
            "  was %s from %s"
                .formatted(
                    target(past.getSharesList(), past.hasShadow() ? past.getShadow() : null),
                    time(past.getChanged())));
      }
    }
    return lines;
  }

  private static void shadow(List<String> lines, Shadow shadow) {
    ShadowTraffic traffic = shadow.getTraffic();
    lines.add(
        "  shadow %s: %,d requests copied, %,d completed, %,d dropped, %,d failed"
            .formatted(
                shadow.getVersion(),
                traffic.getRequests(),
                traffic.getCompleted(),
                traffic.getDropped(),
                traffic.getFailed()));
    if (traffic.getCompleted() > 0) {
      lines.add(
          String.format(
              Locale.ROOT,
              "    agreed on %.1f %% of %,d tokens, %,d answers identical; first token after %.1f"
                  + " ms (real %.1f), whole after %.1f ms (real %.1f)",
              traffic.getTokens() == 0
                  ? 100.0
                  : 100.0 * traffic.getTokensAgreed() / traffic.getTokens(),
              traffic.getTokens(),
              traffic.getIdentical(),
              traffic.getFirstTokenMs(),
              traffic.getRealFirstTokenMs(),
              traffic.getTotalMs(),
              traffic.getRealTotalMs()));
    }
  }

  /** Where an alias leads. */
  static String target(List<Share> shares, @Nullable Shadow shadow) {
    long total = shares.stream().mapToLong(Share::getWeight).sum();
    String target =
        shares.size() == 1
            ? shares.getFirst().getVersion()
            : shares.stream()
                .map(
                    share ->
                        String.format(
                            Locale.ROOT,
                            "%s (%.3g %%)",
                            share.getVersion(),
                            100.0 * share.getWeight() / total))
                .collect(Collectors.joining(", "));
    return shadow == null
        ? target
        : String.format(
            Locale.ROOT,
            "%s, shadowed by %s (%.3g %%)",
            target,
            shadow.getVersion(),
            100.0 * shadow.getFraction());
  }

  /** One line. */
  static String event(AdapterEvent event) {
    String kind =
        event.getKind().name().replaceFirst("KIND_", "").replace('_', ' ').toLowerCase(Locale.ROOT);
    StringBuilder line = new StringBuilder();
    line.append(event.getRevision());
    if (event.hasTime()) {
      line.append("  ").append(time(event.getTime()));
    }
    line.append("  ").append(kind);
    if (!event.getName().isEmpty()) {
      line.append("  ").append(event.getName());
      if (!event.getAlias().isEmpty()) {
        line.append('@').append(event.getAlias());
      }
    }
    if (!event.getDigest().isEmpty()) {
      line.append("  ").append(event.getDigest());
    }
    if (!event.getDetail().isEmpty()) {
      line.append("  ").append(event.getDetail());
    }
    return line.toString();
  }

  private static String time(@Nullable Timestamp time) {
    return time == null
        ? ""
        : TIME.format(Instant.ofEpochSecond(time.getSeconds(), time.getNanos()));
  }
}
