package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The scripts that put a server under load, with programs that only pretend. */
@Timeout(120)
final class BenchScriptsTest {
  private static final Path BENCH = Path.of(System.getProperty("wardrobe.root"), "deploy", "bench");

  @TempDir Path dir;

  private Path said;

  private record Run(int exit, String text) {}

  @BeforeEach
  void pretend() throws IOException {
    assumeTrue(Files.isReadable(Path.of("/proc/self/status")), "not on Linux");
    said = dir.resolve("said");
    // Makes what it is told to make, and for serve the port's file.
    program(
        "wardrobe",
        """
        echo "$*" >> '%s'
        case "$1 $2" in
          "bench adapters")
            while [ $# -gt 1 ]; do [ "$1" != --out ] || out=$2; shift; done
            mkdir -p "$out"; head -c 30000000 /dev/zero > "$out/x" ;;
          "serve "*)
            while [ $# -gt 1 ]; do [ "$1" != --port-file ] || file=$2; shift; done
            trap 'exit 0' TERM
            echo 7 > "$file"
            while :; do sleep 0.05; done ;;
        esac
        """
            .formatted(said));
  }

  private Path program(String name, String body) throws IOException {
    Path file = dir.resolve(name);
    Files.writeString(file, "#!/usr/bin/env bash\nset -e\n" + body);
    assertThat(file.toFile().setExecutable(true)).isTrue();
    return file;
  }

  private Run run(String script, String... arguments) throws Exception {
    List<String> command = new ArrayList<>(List.of(BENCH.resolve(script).toString()));
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().putAll(Map.of("WARDROBE", dir.resolve("wardrobe").toString()));
    Process process = builder.start();
    String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    return new Run(process.exitValue(), text);
  }

  @Test
  void serving_makesMeasuresAndRemoves() throws Exception {
    Path tmp = Files.createDirectory(dir.resolve("tmp"));
    for (String what : List.of("streams", "many", "few", "swap-in", "churn")) {
      Files.deleteIfExists(said);
      Run run =
          run(
              "serving",
              what,
              "--model",
              "/a model",
              "--tmp",
              tmp.toString(),
              "--out",
              dir.toString(),
              "--rank",
              "4",
              "--",
              "--seconds",
              "3");
      assertThat(run.exit()).as(run.text()).isZero();
      List<String> lines = Files.readAllLines(said);
      assertThat(lines.subList(0, lines.size() - 1))
          .isNotEmpty()
          .allMatch(l -> l.startsWith("bench adapters --model /a model --out " + tmp))
          .allMatch(l -> l.contains("--rank 4"));
      assertThat(lines.getLast())
          .startsWith(what.equals("churn") ? "bench churn" : "bench load")
          .contains("--model '/a model' --adapter-root '" + tmp)
          .endsWith("--seconds 3")
          .containsOnlyOnce("--seconds");
      if (List.of("many", "few", "churn").contains(what)) {
        // A tenth of 30 MB, in whole MiB.
        assertThat(lines.getLast()).contains("--adapter-cache-mib 2");
      }
      try (Stream<Path> left = Files.list(tmp)) {
        assertThat(left).as(what).isEmpty();
      }
    }
  }

  @Test
  void serving_refusesWhatIsNoCase() throws Exception {
    assertThat(run("serving", "everything").exit()).isEqualTo(1);
    assertThat(run("serving", "streams", "--fast").text()).contains("--fast");
    assertThat(run("serving").text()).contains("streams, many");
    assertThat(run("serving", "--help").text()).contains("--tmp DIR");
  }

  private Run ghz(String statuses, int calls) throws Exception {
    assumeTrue(
        new ProcessBuilder("python3", "--version").start().waitFor() == 0,
        "python3 is not installed");
    Path ghz =
        program(
            "ghz-program",
            """
            echo "ghz $*" >> '%s'
            echo '{"count": %d, "total": 2000000000, "rps": 10.0, "slowest": 5000000,
              "statusCodeDistribution": %s, "errorDistribution": {},
              "latencyDistribution": [{"percentage": 99, "latency": 4000000}]}'
            """
                .formatted(said, calls, statuses));
    return run(
        "ghz",
        "--ghz",
        ghz.toString(),
        "--wardrobe",
        dir.resolve("wardrobe").toString(),
        "--calls",
        "20",
        "--callers",
        "5",
        "--adapters",
        "3");
  }

  @Test
  void ghz_countsByStatus() throws Exception {
    Run run = ghz("{\"OK\": 18, \"ResourceExhausted\": 2}", 20);
    assertThat(run.exit()).as(run.text()).isZero();
    assertThat(run.text())
        .contains("20 calls of Generate by 5 callers on 3 adapters in 2.0 s")
        .containsPattern("OK +18")
        .containsPattern("ResourceExhausted +2")
        .containsPattern("p99 +4.0 ms");
    assertThat(Files.readString(said)).contains("-c 5 -n 20", "127.0.0.1:7");
  }

  @Test
  void ghz_failsWithACall() throws Exception {
    assertThat(ghz("{\"OK\": 19, \"Unavailable\": 1}", 20).exit()).isEqualTo(1);
    Run run = ghz("{\"OK\": 19}", 19);
    assertThat(run.exit()).as(run.text()).isEqualTo(1);
    assertThat(run.text()).contains("19 of 20 have a status");
  }
}
