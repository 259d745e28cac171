package dev.wardrobe.trainer;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/**
 * The options of {@code wardrobe train} as they were typed, or as its configuration file has them.
 */
final class TrainArguments {
  @ArgGroup(validate = false, order = 1, heading = "%nWhat to learn from:%n")
  DataArguments data = new DataArguments();

  @ArgGroup(validate = false, order = 2, heading = "%nThe adapter:%n")
  AdapterArguments adapter = new AdapterArguments();

  @ArgGroup(validate = false, order = 3, heading = "%nSteps:%n")
  StepArguments steps = new StepArguments();

  @ArgGroup(validate = false, order = 4, heading = "%nMemory:%n")
  MemoryArguments memory = new MemoryArguments();

  @ArgGroup(validate = false, order = 5, heading = "%nEvaluation and samples:%n")
  WatchArguments watch = new WatchArguments();

  @ArgGroup(validate = false, order = 6, heading = "%nThe output:%n")
  OutputArguments output = new OutputArguments();

  static final class DataArguments {
    @Option(
        names = "--data",
        paramLabel = "FILE",
        description =
            "Rows to learn from: JSON lines or a JSON array, gzipped or not, of chats, prompts with"
                + " completions, instructions, texts or tokens. May be repeated.")
    List<Path> files = new ArrayList<>();

    @Option(
        names = "--format",
        paramLabel = "NAME",
        description =
            "messages, sharegpt, alpaca, completion, text or tokens. Default: told by the rows'"
                + " fields.")
    @Nullable String format;

    @Option(
        names = "--loss",
        paramLabel = "WHICH",
        description =
            "assistant: learn what the assistant says, or the completion; all: everything. Default:"
                + " assistant.")
    String loss = "assistant";

    @Option(
        names = "--seq-len",
        paramLabel = "N",
        description =
            "Most tokens of a row; what is longer is cut off, and counted. Default: 1024, or the"
                + " model's context if that is shorter.")
    int length;

    @Option(
        names = "--packing",
        description =
            "Put short rows together up to --seq-len tokens; each still sees itself alone.")
    boolean packing;

    @Option(names = "--group-by-length", description = "Let rows of a like length share a step.")
    boolean groupByLength;

    @Option(
        names = "--order",
        paramLabel = "WHICH",
        description = "shuffled, anew in each epoch, or sequential. Default: shuffled.")
    String order = "shuffled";

    @Option(
        names = "--on-bad-row",
        paramLabel = "WHAT",
        description = "fail, or skip: leave rows out that cannot be used. Default: fail.")
    String onBadRow = "fail";
  }

  static final class AdapterArguments {
    @Option(names = "--rank", paramLabel = "N", description = "r. Default: 16.")
    @Nullable Integer rank;

    @Option(
        names = "--alpha",
        paramLabel = "X",
        description = "The adapter is scaled by alpha / rank. Default: twice the rank.")
    @Nullable Double alpha;

    @Option(
        names = "--target-modules",
        paramLabel = "NAME",
        split = ",",
        description =
            "Projections to adapt, as PEFT names them, such as q_proj,v_proj; or one expression"
                + " that matches whole paths. Default: all-linear.")
    List<String> targets = new ArrayList<>();

    @Option(
        names = "--layers-to-transform",
        paramLabel = "N",
        split = ",",
        description = "Adapt these layers alone, counted from 0. Default: all.")
    List<Integer> layers = new ArrayList<>();

    @Option(
        names = "--rank-pattern",
        paramLabel = "PATTERN=N",
        description = "Another rank for some modules, as PEFT matches them. May be repeated.")
    Map<String, Integer> ranks = new LinkedHashMap<>();

    @Option(
        names = "--alpha-pattern",
        paramLabel = "PATTERN=X",
        description = "Another alpha for some modules. May be repeated.")
    Map<String, Double> alphas = new LinkedHashMap<>();

    @Option(
        names = "--dropout",
        paramLabel = "P",
        description = "On the adapter's branch, while training. Default: 0.")
    @Nullable Double dropout;

    @Option(names = "--use-rslora", description = "Scale by alpha / √rank.")
    boolean rsLora;

    @Option(names = "--use-dora", description = "Train magnitudes beside the directions (DoRA).")
    boolean dora;

    @Option(
        names = "--init-lora-weights",
        paramLabel = "HOW",
        description =
            "default, gaussian, or random, where B does not begin at 0. Default: default.")
    @Nullable String init;

    @Option(names = "--bias", paramLabel = "WHICH", description = "none; others are not trained.")
    String bias = "none";

    @Option(
        names = "--init-adapter",
        paramLabel = "DIR",
        description =
            "Go on from this PEFT adapter; its configuration then takes the place of the options"
                + " above.")
    @Nullable Path from;
  }

  static final class StepArguments {
    @Option(names = "--epochs", paramLabel = "X", description = "Passes over the data. Default: 1.")
    double epochs = 1;

    @Option(
        names = "--max-steps",
        paramLabel = "N",
        description = "So many steps, whatever --epochs says.")
    int most;

    @Option(
        names = "--batch-size",
        paramLabel = "N",
        description = "Rows that go through the model together. Default: 4.")
    int batchSize = 4;

    @Option(
        names = "--grad-accum",
        paramLabel = "N",
        description = "Such micro-batches to a step. Default: 2.")
    int accumulation = 2;

    @Option(
        names = "--lr",
        paramLabel = "X",
        description = "The learning rate at its highest. Default: 2e-4.")
    double rate = 2e-4;

    @Option(
        names = "--schedule",
        paramLabel = "NAME",
        description =
            "constant, linear, cosine or cosine_with_restarts, after the warm-up. Default: cosine.")
    String schedule = "cosine";

    @Option(
        names = "--warmup-steps",
        paramLabel = "N",
        description = "Steps until the rate is at its highest. Default: 3 %% of all.")
    @Nullable Integer warmup;

    @Option(
        names = "--cycles",
        paramLabel = "N",
        description = "Of cosine_with_restarts. Default: 1.")
    int cycles = 1;

    @Option(
        names = "--optim",
        paramLabel = "NAME",
        description =
            "adamw, adamw8bit, lion, lion8bit, sgd, paged_adamw_32bit, paged_adamw_8bit,"
                + " paged_lion_32bit or paged_lion_8bit. Default: adamw.")
    String optimizer = "adamw";

    @Option(
        names = "--weight-decay",
        paramLabel = "X",
        description = "Of all that is trained. Default: 0.")
    double decay;

    @Option(
        names = "--loraplus-ratio",
        paramLabel = "X",
        description = "LoRA+: B's rate is so many times A's. Default: 1.")
    double ratio = 1;

    @Option(names = "--beta1", paramLabel = "X", description = "Default: the optimizer's.")
    @Nullable Double beta1;

    @Option(names = "--beta2", paramLabel = "X", description = "Default: the optimizer's.")
    @Nullable Double beta2;

    @Option(names = "--epsilon", paramLabel = "X", description = "Of AdamW. Default: 1e-8.")
    @Nullable Double epsilon;

    @Option(names = "--momentum", paramLabel = "X", description = "Of sgd. Default: 0.")
    double momentum;

    @Option(
        names = "--max-grad-norm",
        paramLabel = "X",
        description = "Clip the gradient's norm to this; 0 does not. Default: 1.")
    double norm = 1;

    @Option(
        names = "--max-skipped",
        paramLabel = "N",
        description =
            "End after so many steps in a row whose loss or gradient is not finite. Default: 5.")
    int skipped = 5;

    @Option(
        names = "--seed",
        paramLabel = "N",
        description =
            "Of the adapter's beginning, the order of rows and dropout. The same seed gives the"
                + " same adapter. Default: 0.")
    long seed;
  }

  static final class MemoryArguments {
    @Option(
        names = "--paged-budget",
        paramLabel = "SIZE",
        description =
            "With a paged optimizer: how much of its state may be in memory at once, such as 64MiB,"
                + " 2GiB or 10%%; the rest is in a file in the output folder. Default: 10%%.")
    @Nullable String budget;

    @Option(
        names = "--paged-host",
        paramLabel = "SIZE",
        description = "State that lies in host memory rather than in that file. Default: 0.")
    @Nullable String host;

    @Option(
        names = "--min-8bit-size",
        paramLabel = "N",
        description = "With an 8-bit optimizer: smaller tensors keep 32-bit state. Default: 4096.")
    @Nullable Integer leastEightBit;

    @Option(
        names = "--keep-layers",
        paramLabel = "N",
        description =
            "Keep the activations of so many layers rather than compute them again: faster, for"
                + " more memory. Default: 0.")
    int keepLayers;
  }

  static final class WatchArguments {
    @Option(
        names = "--eval-data",
        paramLabel = "FILE",
        description = "Rows to evaluate on, which are not learned from. May be repeated.")
    List<Path> files = new ArrayList<>();

    @Option(
        names = "--eval-split",
        paramLabel = "N",
        description =
            "Set so many rows of --data apart for it, or a share such as 5%%. Default: none.")
    @Nullable String split;

    @Option(
        names = "--eval-steps",
        paramLabel = "N",
        description = "Steps between evaluations. Default: a tenth of all.")
    @Nullable Integer steps;

    @Option(
        names = "--eval-batch-size",
        paramLabel = "N",
        description = "Rows evaluated together. Default: --batch-size.")
    @Nullable Integer batchSize;

    @Option(
        names = "--patience",
        paramLabel = "N",
        description =
            "End when so many evaluations in a row were no better than the best. Default: never.")
    int patience;

    @Option(
        names = "--min-gain",
        paramLabel = "X",
        description = "By how much an evaluation's loss must be better to count. Default: 0.")
    double leastGain;

    @Option(
        names = "--sample-prompt",
        paramLabel = "TEXT",
        description =
            "Have the adapter answer this now and then: a user's message where the model has a"
                + " chat template, else a text to go on with. May be repeated.")
    List<String> prompts = new ArrayList<>();

    @Option(
        names = "--sample-steps",
        paramLabel = "N",
        description = "Steps between answers. Default: as --eval-steps.")
    @Nullable Integer sampleSteps;

    @Option(
        names = "--sample-tokens",
        paramLabel = "N",
        description = "Most tokens of an answer. Default: 64.")
    int sampleTokens = 64;

    @Option(
        names = "--logging-steps",
        paramLabel = "N",
        description =
            "Steps between lines where no terminal is; metrics.jsonl has all of them. Default: 10.")
    int loggingSteps = 10;
  }

  static final class OutputArguments {
    @Option(
        names = "--out",
        paramLabel = "DIR",
        description =
            "The adapter, with its model card, metrics, report and checkpoints: a new or empty"
                + " folder.")
    @Nullable Path folder;

    @Option(
        names = "--resume",
        description =
            "Go on with the run in --out from its latest checkpoint; begin, if there is none.")
    boolean resume;

    @Option(
        names = "--save-steps",
        paramLabel = "N",
        description = "Steps between checkpoints. Default: a tenth of all, at most 100.")
    @Nullable Integer saveSteps;

    @Option(
        names = "--keep",
        paramLabel = "N",
        description = "Checkpoints that are kept, beside the best. Default: 2.")
    int keep = 2;

    @Option(
        names = "--output",
        paramLabel = "WHICH",
        description =
            "Which adapter is the result: best (of the evaluations), or last. Default: best where"
                + " there are any.")
    @Nullable String which;

    @Option(
        names = "--publish",
        paramLabel = "NAME",
        description = "Publish the result under this name, in --store or to --server.")
    @Nullable String publish;

    @Option(
        names = "--store",
        paramLabel = "DIR",
        description = "The adapter store to publish to, which no server must have open.")
    @Nullable Path store;

    @Option(
        names = "--server",
        paramLabel = "HOST:PORT",
        description = "The running server to publish to, which keeps it in its own store.")
    @Nullable String server;

    @Option(
        names = "--json",
        description =
            "Write one line of JSON about the run to standard output, and all else to standard"
                + " error.")
    boolean json;
  }
}
