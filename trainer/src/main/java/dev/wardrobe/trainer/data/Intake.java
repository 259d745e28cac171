package dev.wardrobe.trainer.data;

import dev.wardrobe.text.Tokenizer;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.jspecify.annotations.Nullable;

/**
 * One pass over files: a thread reads, some tokenize, and what they make is written in the files'
 * order, so that neither memory nor result depends on the size or on the threads.
 */
final class Intake {
  private static final String UNKNOWN = "of no format that is known";
  private static final String EXPECTED =
      "expected fields 'messages', 'conversations', 'input_ids', 'instruction' and 'output',"
          + " 'prompt' and 'completion', or 'text', got ";

  /** Rows that go to a thread together, and their bytes, of which the last row may have more. */
  private static final int CHUNK_ROWS = 64;

  private static final long CHUNK_BYTES = 1 << 18;

  /** Bytes that may be under way; a single row may have more. */
  private static final long MAX_UNDER_WAY = 16 << 20;

  /** Bad rows whose places are told. */
  private static final int FIRST_BAD = 5;

  /** Tokens of the example that are shown. */
  private static final int EXAMPLE = 1000;

  /** Rows that one thread makes into tokens. */
  private record Chunk(Future<List<Result>> results, long bytes) {}

  /** A row, understood, or not. */
  private record Result(String place, @Nullable Encoded encoded, @Nullable BadRow bad) {}

  private final ModelText model;
  private final DataOptions options;
  private final Encoder encoder;
  private final Map<Path, Format> formats = new LinkedHashMap<>();
  private final Map<String, Long> dropped = new TreeMap<>();
  private final Map<String, Long> bad = new TreeMap<>();
  private final Map<Note, Long> notes = new TreeMap<>();
  private final List<String> firstBad = new ArrayList<>();
  private final ArrayDeque<Chunk> underWay = new ArrayDeque<>();
  private long bytesUnderWay;
  private int[] example = new int[0];
  private long read;
  private long targets;
  private int longest;
  private long truncated;
  private long cut;

  Intake(ModelText model, DataOptions options) {
    this.model = model;
    this.options = options;
    this.encoder = new Encoder(model, options);
  }

  Dataset read(List<Path> files) throws DataException {
    MessageDigest source = sha256();
    MessageDigest tokens = sha256();
    TokenFile out = TokenFile.create(options.scratch(), tokens);
    Dataset dataset = null;
    ExecutorService threads =
        Executors.newFixedThreadPool(
            options.threads(), Thread.ofPlatform().name("tokenizing-", 0).daemon().factory());
    try {
      for (Path file : files) {
        try (RowFile rows = RowFile.open(file, source)) {
          read(file, rows, threads, out);
        }
      }
      while (!underWay.isEmpty()) {
        take(out);
      }
      out.finish();
      Summary summary = summary(out, HexFormat.of().formatHex(source.digest()));
      if (out.size() == 0) {
        throw new DataException(
            "nothing to learn from: %,d rows read, none of use; %s".formatted(read, why(summary)));
      }
      dataset = new Dataset(out, summary, HexFormat.of().formatHex(tokens.digest()));
      return dataset;
    } finally {
      threads.shutdownNow();
      if (dataset == null) {
        out.close();
      }
    }
  }

  private void read(Path file, RowFile rows, ExecutorService threads, TokenFile out)
      throws DataException {
    Format format = options.format();
    List<RowFile.Found> chunk = new ArrayList<>();
    long bytes = 0;
    while (true) {
      RowFile.Found found = rows.next();
      if (found != null && format == null) {
        format = detect(found);
      }
      if (found != null) {
        read++;
        chunk.add(found);
        bytes += found.size();
      }
      if (!chunk.isEmpty()
          && (found == null
              || chunk.size() == CHUNK_ROWS
              || bytes >= CHUNK_BYTES
              || format == null)) {
        submit(List.copyOf(chunk), format, bytes, threads, out);
        chunk.clear();
        bytes = 0;
      }
      if (found == null) {
        break;
      }
    }
    if (format != null) {
      formats.put(file, format);
    }
  }

  /** The format of the first row that has one. */
  private static @Nullable Format detect(RowFile.Found found) {
    try {
      Map<String, @Nullable Object> fields = fields(found);
      return Format.of(fields);
    } catch (BadRow e) {
      return null;
    }
  }

  private void submit(
      List<RowFile.Found> chunk,
      @Nullable Format format,
      long bytes,
      ExecutorService threads,
      TokenFile out)
      throws DataException {
    while (underWay.size() > 2 * options.threads()
        || (!underWay.isEmpty() && bytesUnderWay + bytes > MAX_UNDER_WAY)) {
      take(out);
    }
    underWay.add(new Chunk(threads.submit(() -> encode(chunk, format)), bytes));
    bytesUnderWay += bytes;
  }

  private List<Result> encode(List<RowFile.Found> chunk, @Nullable Format format) {
    List<Result> results = new ArrayList<>(chunk.size());
    for (RowFile.Found found : chunk) {
      try {
        Map<String, @Nullable Object> fields = fields(found);
        if (format == null) {
          throw new BadRow(UNKNOWN, EXPECTED + Json.shortened(fields.keySet().toString()));
        }
        Encoded encoded = encoder.encode(Samples.of(format, fields));
        results.add(new Result(found.place(), encoded, null));
      } catch (BadRow e) {
        results.add(new Result(found.place(), null, e));
      } catch (RuntimeException e) {
        throw new IllegalStateException(found.place() + ": the row cannot be made into tokens", e);
      }
    }
    return results;
  }

  private static Map<String, @Nullable Object> fields(RowFile.Found found) throws BadRow {
    if (found.bad() != null) {
      throw found.bad();
    }
    if (found.fields() != null) {
      return found.fields();
    }
    return Json.row(found.line() == null ? new byte[0] : found.line());
  }

  /** Writes what the first chunk under way has become. */
  private void take(TokenFile out) throws DataException {
    Chunk chunk = underWay.remove();
    bytesUnderWay -= chunk.bytes();
    List<Result> results;
    try {
      results = chunk.results().get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DataException("reading the data was interrupted", e);
    } catch (ExecutionException e) {
      throw new IllegalStateException(e.getCause());
    }
    for (Result result : results) {
      if (result.encoded() != null) {
        take(result.encoded(), out);
      } else if (result.bad() != null) {
        refuse(result.place(), result.bad());
      }
    }
  }

  private void take(Encoded encoded, TokenFile out) throws DataException {
    for (int[] row : encoded.rows()) {
      if (out.size() == 0) {
        example = row;
      }
      out.append(row);
      targets += out.targets(out.size() - 1);
      longest = Math.max(longest, row.length);
    }
    encoded.dropped().forEach(reason -> dropped.merge(reason, 1L, Long::sum));
    encoded.notes().forEach(note -> notes.merge(note, 1L, Long::sum));
    truncated += encoded.truncated();
    cut += encoded.cut();
  }

  private void refuse(String place, BadRow row) throws DataException {
    String what = place + ": " + row.reason() + ": " + row.getMessage();
    if (!options.skipBadRows()) {
      throw new DataException(
          what + "; mend the row, or leave such rows out: --on-bad-row skip", row);
    }
    bad.merge(row.reason(), 1L, Long::sum);
    if (firstBad.size() < FIRST_BAD) {
      firstBad.add(what);
    }
  }

  private Summary summary(TokenFile out, String digest) {
    Map<String, Long> told = new LinkedHashMap<>();
    notes.forEach((note, count) -> told.put(note.text(), count));
    return new Summary(
        formats,
        digest,
        read,
        out.size(),
        out.tokens(),
        targets,
        longest,
        truncated,
        cut,
        dropped,
        bad,
        List.copyOf(firstBad),
        told,
        pieces());
  }

  private static String why(Summary summary) {
    Map<String, Long> reasons = new LinkedHashMap<>(summary.bad());
    reasons.putAll(summary.dropped());
    return reasons
        + (summary.firstBad().isEmpty() ? "" : "; the first: " + summary.firstBad().getFirst());
  }

  /** The example's text, parted where what is learned begins and ends. */
  private List<Summary.Piece> pieces() {
    int[] ids = new int[Math.min(example.length, EXAMPLE)];
    for (int i = 0; i < ids.length; i++) {
      ids[i] = example[i] & ~Encoded.LEARNED;
    }
    List<Summary.Piece> pieces = new ArrayList<>();
    String before = "";
    for (int from = 0; from < ids.length; ) {
      int to = from;
      while (to < ids.length && (example[to] < 0) == (example[from] < 0)) {
        to++;
      }
      // What tokens add to those before them: alone, some lose a blank.
      String through = text(ids, 0, to);
      String added =
          through.startsWith(before) ? through.substring(before.length()) : text(ids, from, to);
      pieces.add(new Summary.Piece(added, example[from] < 0));
      before = through;
      from = to;
    }
    if (ids.length < example.length) {
      String more = " ... %,d more tokens".formatted(example.length - ids.length);
      pieces.add(new Summary.Piece(more, false));
    }
    return pieces;
  }

  private String text(int[] ids, int from, int to) {
    int[] part = Arrays.copyOfRange(ids, from, to);
    Tokenizer tokenizer = model.tokenizer();
    if (tokenizer != null) {
      return tokenizer.decode(part, false);
    }
    StringBuilder numbers = new StringBuilder();
    for (int id : part) {
      numbers.append(id).append(' ');
    }
    return numbers.toString();
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }
}
