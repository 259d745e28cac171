package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.StartException;
import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.AdapterSummary;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

final class TrainCommandTest {
  static final Path BASE =
      Path.of(System.getProperty("wardrobe.root", ".."))
          .resolve("server/src/test/resources/golden/models/llama_mha-nf4-dq");
  private static final ObjectMapper MAPPER = new ObjectMapper();

  @TempDir private Path folder;
  private Path data;
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  /** Rows of tokens that follow a rule, so that there is something to learn. */
  static Path rows(Path file, int rows, int seed) throws IOException {
    Random random = new Random(seed);
    List<String> lines = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      List<Integer> tokens = new ArrayList<>();
      int token = 3 + random.nextInt(50);
      for (int i = 0; i < 6 + random.nextInt(12); i++) {
        tokens.add(token);
        token = 3 + (token * 5 + 1) % 50;
      }
      lines.add("{\"input_ids\": %s}".formatted(tokens));
    }
    return Files.write(file, lines);
  }

  @BeforeEach
  void write() throws IOException {
    data = rows(folder.resolve("data.jsonl"), 40, 1);
  }

  private int train(String... arguments) {
    out.getBuffer().setLength(0);
    err.getBuffer().setLength(0);
    return new CommandLine(new TrainCommand())
        .setOut(new PrintWriter(out))
        .setErr(new PrintWriter(err))
        .setExecutionExceptionHandler(
            (e, command, parsed) -> {
              command.getErr().println(e instanceof StartException s ? s.line() : e.getMessage());
              command.getErr().flush();
              if (e instanceof RuntimeException) {
                throw e;
              }
              return e instanceof StartException s ? s.exit() : 1;
            })
        .execute(arguments);
  }

  private String[] arguments(Path to, String... more) {
    List<String> all =
        new ArrayList<>(
            List.of(
                "--model=" + BASE,
                "--data=" + data,
                "--out=" + to,
                "--threads=1",
                "--rank=4",
                "--lr=5e-3",
                "--batch-size=4",
                "--grad-accum=2",
                "--seed=3"));
    for (String option : more) {
      String name = option.replaceFirst("=.*", "=");
      all.removeIf(other -> other.startsWith(name) && name.endsWith("="));
      all.add(option);
    }
    return all.toArray(String[]::new);
  }

  private static List<JsonNode> metrics(Path to) throws IOException {
    List<JsonNode> lines = new ArrayList<>();
    for (String line : Files.readAllLines(to.resolve("metrics.jsonl"))) {
      lines.add(MAPPER.readTree(line));
    }
    return lines;
  }

  @ParameterizedTest
  @ValueSource(strings = {"--rank=0", "--lr=-1", "--optim=sdg", "--schedule=round", "--epochs=0"})
  void options_areCheckedBeforeModelAndDataAreRead(String wrong) throws Exception {
    Path to = folder.resolve("out");
    assertThat(train(arguments(to, wrong, "--model=nowhere", "--data=nothing"))).isEqualTo(2);
    assertThat(err.toString()).contains(wrong.substring(0, wrong.indexOf('='))).hasLineCount(1);
    assertThat(to).doesNotExist();
  }

  @Test
  void oneStep_learns() throws Exception {
    Path to = folder.resolve("out");
    assertThat(train(arguments(to, "--max-steps=1"))).isZero();
    assertThat(metrics(to).getLast().path("lr").doubleValue()).isEqualTo(5e-3);
  }

  @Test
  void train_learns_andLeavesAnAdapterThatTheServerReads() throws Exception {
    Path to = folder.resolve("out");
    Path evaluation = rows(folder.resolve("eval.jsonl"), 8, 2);
    int exit =
        train(arguments(to, "--epochs=3", "--eval-data=" + evaluation, "--eval-steps=5", "--json"));
    assertThat(err.toString() + exit).endsWith("0");

    List<JsonNode> metrics = metrics(to);
    assertThat(metrics).hasSize(16);
    double first = metrics.getFirst().path("eval_loss").doubleValue();
    double last = metrics.getLast().path("eval_loss").doubleValue();
    assertThat(last).isLessThan(first - 0.5);
    assertThat(metrics.get(1).path("lr").doubleValue()).isZero();
    assertThat(metrics.get(5).has("eval_loss")).isTrue();
    assertThat(metrics.get(6).has("eval_loss")).isFalse();
    long tokens = 0;
    for (int i = 1; i < metrics.size(); i++) {
      JsonNode line = metrics.get(i);
      assertThat(line.path("step").intValue()).isEqualTo(i);
      assertThat(line.path("loss").isNumber()).isTrue();
      assertThat(line.path("grad_norm").doubleValue()).isPositive();
      assertThat(line.path("tokens").longValue()).isGreaterThan(tokens);
      tokens = line.path("tokens").longValue();
    }

    JsonNode summary = MAPPER.readTree(out.toString());
    assertThat(summary.path("steps").intValue()).isEqualTo(15);
    assertThat(summary.path("best_eval_loss").doubleValue()).isEqualTo(last);
    assertThat(to.resolve("report.html")).content().contains("<svg").contains("Best evaluation");
    assertThat(to.resolve("README.md"))
        .content()
        .startsWith("---\nbase_model: \"llama_mha-nf4-dq\"\n")
        .contains("| lr | 0.005 |")
        .contains("SHA-256 of the files");
    try (Stream<Path> files = Files.list(to)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .filteredOn(name -> name.startsWith("events.out.tfevents."))
          .hasSize(1);
    }
    try (CpuBackend backend = new CpuBackend(1);
        Model model = ModelLoader.load(BASE, LoadOptions.DEFAULT, backend);
        Adapter adapter = Adapter.read(to, model, AdapterOptions.DEFAULT)) {
      assertThat(adapter.warnings()).isEmpty();
      assertThat(adapter.deltas()).hasSize(14);
    }
    AdapterSummary adapter = AdapterSummary.read(to, AdapterOptions.DEFAULT);
    assertThat(adapter.rank()).isEqualTo(4);
    assertThat(adapter.alpha()).isEqualTo(8);
  }

  @Test
  void best_isWhatIsLeft_andPatienceEnds() throws Exception {
    Path to = folder.resolve("out");
    // Rows that follow no rule: to learn others makes them worse.
    Path evaluation = folder.resolve("eval.jsonl");
    Random random = new Random(5);
    List<String> lines = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      lines.add("{\"input_ids\": %s}".formatted(random.ints(20, 300, 500).boxed().toList()));
    }
    Files.write(evaluation, lines);
    int exit =
        train(
            arguments(
                to,
                "--epochs=40",
                "--lr=2e-2",
                "--eval-data=" + evaluation,
                "--eval-steps=3",
                "--patience=2",
                "--json"));
    assertThat(exit).isZero();
    JsonNode summary = MAPPER.readTree(out.toString());
    int best = summary.path("best_step").intValue();
    assertThat(summary.path("steps").intValue()).isEqualTo(best + 6).isLessThan(200);
    assertThat(summary.path("adapter_step").intValue()).isEqualTo(best);
    assertThat(to.resolve("adapter_model.safetensors"))
        .hasSameBinaryContentAs(
            to.resolve("checkpoints/best-%08d/adapter_model.safetensors".formatted(best)));
    // It has ended: to go on with it ends at once, with the same.
    byte[] adapter = Files.readAllBytes(to.resolve("adapter_model.safetensors"));
    List<JsonNode> before = metrics(to);
    assertThat(
            train(
                arguments(
                    to,
                    "--epochs=40",
                    "--lr=2e-2",
                    "--eval-data=" + evaluation,
                    "--eval-steps=3",
                    "--patience=2",
                    "--resume")))
        .isZero();
    assertThat(metrics(to)).isEqualTo(before);
    assertThat(to.resolve("adapter_model.safetensors")).hasBinaryContent(adapter);
  }

  @Test
  void initAdapter_isGoneOnWith() throws Exception {
    Path first = folder.resolve("first");
    assertThat(train(arguments(first, "--max-steps=4", "--use-dora", "--dropout=0.1"))).isZero();
    Path second = folder.resolve("second");
    int exit =
        train(
            "--model=" + BASE,
            "--data=" + data,
            "--out=" + second,
            "--threads=1",
            "--init-adapter=" + first,
            "--max-steps=3",
            "--warmup-steps=2",
            "--lr=1e-3");
    assertThat(err.toString() + exit).endsWith("0");
    // At the first step's rate of 0 nothing has changed yet: the loss goes on where it was.
    JsonNode ours = MAPPER.readTree(Files.readString(first.resolve("adapter_config.json")));
    JsonNode theirs = MAPPER.readTree(Files.readString(second.resolve("adapter_config.json")));
    assertThat(theirs).isEqualTo(ours);
    assertThat(theirs.path("use_dora").booleanValue()).isTrue();
    assertThat(train(arguments(folder.resolve("third"), "--init-adapter=" + first))).isEqualTo(2);
    assertThat(err.toString()).contains("leave out --rank");
  }

  @Test
  void publish_isInTheStore() throws Exception {
    Path store = folder.resolve("store");
    int exit =
        train(
            arguments(
                folder.resolve("out"), "--max-steps=3", "--publish=rule", "--store=" + store));
    assertThat(err.toString() + exit).endsWith("0");
    assertThat(out.toString()).contains("Published as rule@1");
    try (AdapterStore opened = AdapterStore.openToRead(store, StoreOptions.DEFAULT)) {
      assertThat(opened.catalog().entry("rule")).isNotNull();
    }
  }

  @Test
  void notFinite_isSkippedAndCounted_thenEnds() throws Exception {
    Path to = folder.resolve("out");
    int exit =
        train(
            arguments(
                to,
                "--epochs=20",
                "--lr=1e38",
                "--warmup-steps=0",
                "--schedule=constant",
                "--optim=sgd",
                "--max-grad-norm=0",
                "--max-skipped=3"));
    assertThat(exit).isEqualTo(1);
    assertThat(err.toString()).contains("expected finite numbers").contains("Lower --lr");
    List<JsonNode> skipped = metrics(to).stream().filter(line -> line.has("skipped")).toList();
    assertThat(skipped).hasSize(3);
    assertThat(to.resolve("adapter_model.safetensors")).doesNotExist();
  }

  @Test
  void usedFolder_isRefused() throws Exception {
    Path to = folder.resolve("out");
    assertThat(train(arguments(to, "--max-steps=2"))).isZero();
    byte[] adapter = Files.readAllBytes(to.resolve("adapter_model.safetensors"));
    assertThat(train(arguments(to, "--max-steps=2"))).isEqualTo(1);
    assertThat(err.toString())
        .contains("--out: expected a new or empty folder")
        .contains("--resume");
    assertThat(train(arguments(to, "--max-steps=2", "--lr=1e-3", "--resume"))).isEqualTo(1);
    assertThat(err.toString()).contains("--lr was 0.005, and is 0.001");
    rows(data, 40, 9);
    assertThat(train(arguments(to, "--max-steps=2", "--resume"))).isEqualTo(1);
    assertThat(err.toString()).contains("the data's digest was");
    assertThat(to.resolve("adapter_model.safetensors")).hasBinaryContent(adapter);
    assertThat(train(arguments(data, "--max-steps=2"))).isEqualTo(1);
    assertThat(err.toString()).contains("--out: expected a new or empty folder, got the file");
    assertThat(train(arguments(folder, "--resume"))).isEqualTo(1);
    assertThat(err.toString()).contains("expected a folder that wardrobe train has written");
  }

  @Test
  void refusedRun_leavesItsFolderToTheNext() throws Exception {
    Path to = folder.resolve("out");
    assertThat(train(arguments(to, "--target-modules=nothing"))).isEqualTo(1);
    int exit = train(arguments(to, "--max-steps=1"));
    assertThat(err.toString() + exit).endsWith("0");
    assertThat(to.resolve("adapter_model.safetensors")).exists();
    Path theirs = folder.resolve("theirs");
    Files.createDirectories(theirs);
    Files.writeString(theirs.resolve("notes.txt"), "mine");
    assertThat(train(arguments(theirs, "--max-steps=1"))).isEqualTo(1);
    assertThat(err.toString()).contains("--out: expected a new or empty folder");
  }

  @Test
  void resume_ofNothing_begins() throws Exception {
    Path to = folder.resolve("out");
    assertThat(train(arguments(to, "--max-steps=2", "--resume"))).isZero();
    assertThat(to.resolve("adapter_model.safetensors")).exists();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--rank=0 | --rank: expected at least 1, got 0",
        "--alpha=-1 | alpha: expected a positive number",
        "--dropout=1 | --dropout: expected at least 0 and below 1, got 1.0",
        "--bias=all | --bias: expected none",
        "--target-modules=nothing | selects no module",
        "--optim=adam | expected one of adamw",
        "--schedule=step | --schedule",
        "--lr=-1 | learning rate: expected at least 0",
        "--lr=NaN | learning rate",
        "--epochs=0 | --epochs: expected more than 0",
        "--max-steps=-1 | --max-steps: expected at least 1",
        "--batch-size=0 | --batch-size: expected at least 1",
        "--seq-len=100000 | --seq-len: expected 2 to 512",
        "--math=half | --math: expected exact or fast",
        "--loss=some | --loss: expected assistant, all, got 'some'",
        "--format=xml | --format: expected messages",
        "--order=random | --order: expected",
        "--on-bad-row=ignore | --on-bad-row: expected",
        "--keep-layers=-1 | --keep-layers: expected at least 0",
        "--optim=paged_adamw_32bit --paged-budget=x | such as 512MiB",
        "--paged-budget=1G | they go with a paged optimizer",
        "--patience=2 | expected something to evaluate on",
        "--eval-split=100% | --eval-split: expected a number of rows",
        "--eval-split=40 | set fewer apart",
        "--eval-data=none.jsonl | none.jsonl",
        "--publish=x | expected with --store or --server",
        "--publish=x --store=a --server=b:1 | expected one of them",
        "--output=worst | --output: expected best or last",
        "--keep=0 | --keep: expected at least 1",
        "--init-adapter=none | leave out --rank",
        "--sample-tokens=0 | --sample-tokens",
        "--group-by-length --packing | leave out either",
      })
  void wrongOption_isOneLine(String option, String message) {
    // What is wrong only for this model and these data.
    boolean could =
        Set.of("--target-modules=nothing", "--eval-split=40", "--eval-data=none.jsonl")
            .contains(option);
    assertThat(train(arguments(folder.resolve("out"), option.split(" ")))).isEqualTo(could ? 1 : 2);
    assertThat(err.toString().strip()).contains(message).hasLineCount(1);
    assertThat(folder.resolve("out/adapter_model.safetensors")).doesNotExist();
  }

  @Test
  void help_saysAll() {
    assertThat(train("--help")).isZero();
    assertThat(out.toString())
        .contains("--data=FILE")
        .contains("What to learn from:")
        .contains("Default: 3 % of all")
        .doesNotContain("%n")
        .doesNotContain("%%");
    assertThat(err.toString()).isEmpty();
  }

  @Test
  void pagedOptimizer_givesTheSameBits() throws Exception {
    byte[][] adapters = new byte[2][];
    String[][] options = {
      {"--max-steps=6"}, {"--max-steps=6", "--optim=paged_adamw_32bit", "--paged-budget=1"}
    };
    for (int i = 0; i < 2; i++) {
      Path to = folder.resolve("out" + i);
      assertThat(train(arguments(to, options[i]))).isZero();
      adapters[i] = Files.readAllBytes(to.resolve("adapter_model.safetensors"));
    }
    assertThat(adapters[1]).isEqualTo(adapters[0]);
  }
}
