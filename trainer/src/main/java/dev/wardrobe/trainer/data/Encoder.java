package dev.wardrobe.trainer.data;

import dev.wardrobe.text.ChatRequest;
import dev.wardrobe.text.ChatTemplate;
import dev.wardrobe.text.RenderedChat;
import dev.wardrobe.text.RenderedChat.Span;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.Tokenizer;
import dev.wardrobe.text.Tokenizer.MaskedTokens;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/*
 * What is learned of a conversation is what the model would have to write when it is served. There
 * the server renders what was said so far with the opening of an answer, and the model goes on. So
 * an answer begins where that rendering ends within the rendering of the whole, and it ends where
 * the rendering that includes it ends: no marker is looked for, which a text could hold as well.
 * Templates that say themselves what the assistant writes ({% generation %}) are believed.
 *
 * A template may write a turn otherwise once others follow it (reasoning is left out of earlier
 * answers, for instance), so that the shorter renderings are not the beginning of the longer one.
 * Then each answer becomes a row of its own, the conversation up to it: again what serving sees.
 */

/**
 * Makes tokens of rows: by the chat template and the tokenizer that serving uses, with the mask of
 * what is learned. May be used from several threads.
 */
final class Encoder {
  static final String TEMPLATE = "refused by the chat template";
  static final String UNCLEAR = "a template that does not show what the assistant writes";
  static final String TEXT = "text that cannot be tokenized";
  static final String VOCABULARY = "tokens outside the vocabulary";

  /** Characters that may be rendered to find one conversation's answers. */
  private static final long MAX_RENDERED = 1L << 27;

  /** Messages of a long conversation. */
  private static final int LONG = 32;

  private final ModelText model;
  private final DataOptions options;

  Encoder(ModelText model, DataOptions options) {
    this.model = model;
    this.options = options;
  }

  /**
   * Makes tokens of a row.
   *
   * @throws BadRow if that cannot be done
   */
  Encoded encode(Sample sample) throws BadRow {
    return switch (sample) {
      case Sample.Tokens tokens -> tokens(tokens);
      case Sample.Text text -> text(text);
      case Sample.Chat chat -> chat(chat);
      case Sample.Instruction instruction ->
          model.template() == null ? text(instruction.plain()) : chat(instruction.chat());
    };
  }

  private Encoded tokens(Sample.Tokens tokens) throws BadRow {
    Encoded encoded = new Encoded();
    boolean[] learned = tokens.learned();
    if (options.loss() == Loss.ALL) {
      learned = new boolean[learned.length];
      Arrays.fill(learned, true);
    }
    add(encoded, tokens.ids(), learned);
    return encoded;
  }

  // Plain text

  private Encoded text(Sample.Text text) throws BadRow {
    Encoded encoded = new Encoded();
    String prompt = text.prompt() == null ? "" : text.prompt();
    String whole = prompt + text.completion();
    if (whole.isEmpty()) {
      encoded.add(new int[0], new boolean[0], options.sequenceLength());
      return encoded;
    }
    boolean all = text.prompt() == null || options.loss() == Loss.ALL;
    Span span = new Span(all ? 0 : prompt.length(), whole.length());
    MaskedTokens masked = tokenize(new RenderedChat(whole, List.of(span)), true);
    int[] ids = masked.ids();
    boolean[] learned = masked.assistant();
    if (all) {
      Arrays.fill(learned, true);
    } else if (text.completion().isEmpty()) {
      encoded.note(Note.EMPTY);
    } else if (straddles(whole, prompt.length(), learned)) {
      encoded.note(Note.STRADDLING);
    }
    int begin = begins(ids) ? 1 : 0;
    if (begin == 1) {
      encoded.note(Note.BEGINNING);
    }
    int length = ids.length;
    ids = Arrays.copyOfRange(ids, begin, length);
    learned = Arrays.copyOfRange(learned, begin, length);
    end(encoded, ids, learned);
    return encoded;
  }

  /** Whether a token that is learned holds a character of the prompt. */
  private boolean straddles(String whole, int prompt, boolean[] learned) throws BadRow {
    boolean[] given =
        tokenize(new RenderedChat(whole, List.of(new Span(0, prompt))), true).assistant();
    for (int i = 0; i < given.length; i++) {
      if (given[i] && learned[i]) {
        return true;
      }
    }
    return false;
  }

  /** Whether a text brings the token with which the tokenizer begins texts. */
  private boolean begins(int[] ids) {
    Tokenizer tokenizer = model.tokenizer();
    String bos = tokenizer == null ? null : tokenizer.bosToken();
    Integer id = tokenizer == null || bos == null ? null : tokenizer.id(bos);
    return id != null && ids.length >= 2 && ids[0] == id && ids[1] == id;
  }

  /** Adds a conversation whose template writes nothing at which the server would stop. */
  private void endTemplate(Encoded encoded, int[] ids, boolean[] learned) throws BadRow {
    if (model.end() != null) {
      encoded.note(Note.ENDED);
    }
    end(encoded, ids, learned);
  }

  /** Adds a row that is to end, with a token for it unless it has one. */
  private void end(Encoded encoded, int[] ids, boolean[] learned) throws BadRow {
    int length = ids.length;
    if (length > 0 && model.ends(ids[length - 1])) {
      learned[length - 1] = true;
    } else if (model.end() == null) {
      encoded.note(Note.UNENDED);
    } else {
      ids = Arrays.copyOf(ids, length + 1);
      learned = Arrays.copyOf(learned, length + 1);
      ids[length] = model.end();
      learned[length] = true;
    }
    add(encoded, ids, learned);
  }

  // Conversations

  private Encoded chat(Sample.Chat chat) throws BadRow {
    Encoded encoded = new Encoded();
    if (options.loss() == Loss.ALL) {
      String text = new Rendering(chat).render(chat.messages().size(), false);
      boolean answered = "assistant".equals(chat.messages().getLast().get("role"));
      all(encoded, tokenize(new RenderedChat(text, List.of()), false).ids(), answered);
      return encoded;
    }
    Sample.Chat answered = upToLastAnswer(chat);
    if (answered == null) {
      encoded.add(new int[0], new boolean[0], options.sequenceLength());
      return encoded;
    }
    for (RenderedChat row : new Rendering(answered).rows(encoded)) {
      row(encoded, row);
    }
    return encoded;
  }

  /** Without what follows the last answer: nothing of it is learned. Null if there is none. */
  private static Sample.@Nullable Chat upToLastAnswer(Sample.Chat chat) {
    int end = chat.learned().length;
    while (end > 0 && !chat.learned()[end - 1]) {
      end--;
    }
    return end == 0
        ? null
        : new Sample.Chat(
            chat.messages().subList(0, end),
            Arrays.copyOf(chat.learned(), end),
            chat.tools(),
            chat.variables());
  }

  private void all(Encoded encoded, int[] ids, boolean answered) throws BadRow {
    boolean[] learned = new boolean[ids.length];
    Arrays.fill(learned, true);
    if (answered && lastEnd(ids, 0, ids.length) < 0) {
      endTemplate(encoded, ids, learned);
    } else {
      add(encoded, ids, learned);
    }
  }

  /** Adds a conversation that ends with an answer. */
  private void row(Encoded encoded, RenderedChat row) throws BadRow {
    MaskedTokens masked = tokenize(row, false);
    int[] ids = masked.ids();
    boolean[] learned = masked.assistant();
    boolean ended = false;
    int answered = 0;
    for (int from = 0; from < ids.length; from++) {
      if (learned[from]) {
        int to = from;
        while (to < ids.length && learned[to]) {
          to++;
        }
        if (model.ends(ids[from])) {
          encoded.note(Note.EMPTY);
        }
        ended = endTurn(ids, learned, from, to);
        answered = to;
        from = to;
      }
    }
    if (answered > 0 && !ended) {
      endTemplate(encoded, Arrays.copyOf(ids, answered), Arrays.copyOf(learned, answered));
    } else {
      add(encoded, ids, learned);
    }
  }

  /**
   * Lets an answer's mask end with the token at which the server stops: what the template writes
   * behind it no model ever says, and without it none learns to stop.
   *
   * @return whether there is one
   */
  private boolean endTurn(int[] ids, boolean[] learned, int from, int to) {
    int end = lastEnd(ids, from, to);
    if (end >= 0) {
      Arrays.fill(learned, end + 1, to, false);
      return true;
    }
    if (to < ids.length && model.ends(ids[to])) {
      learned[to] = true;
      return true;
    }
    return false;
  }

  private int lastEnd(int[] ids, int from, int to) {
    for (int i = to - 1; i >= from; i--) {
      if (model.ends(ids[i])) {
        return i;
      }
    }
    return -1;
  }

  /** One conversation, rendered as often as it takes to find what the assistant says. */
  private final class Rendering {
    private final Sample.Chat chat;
    private final ChatTemplate template;
    private final Map<String, @Nullable Object> variables;
    private long rendered;

    Rendering(Sample.Chat chat) throws BadRow {
      ChatTemplate own = model.template();
      if (own == null) {
        throw new BadRow(
            TEMPLATE,
            model.noTemplate() + ", and conversations need one; give prompt and completion");
      }
      this.template = own;
      this.chat = chat;
      this.variables = new HashMap<>(options.templateVariables());
      this.variables.putAll(chat.variables());
    }

    /** The rows that a conversation makes, with what is learned of each. */
    List<RenderedChat> rows(Encoded encoded) throws BadRow {
      boolean every = true;
      for (int i = 0; i < chat.learned().length; i++) {
        Map<String, @Nullable Object> message = chat.messages().get(i);
        every &= chat.learned()[i] == "assistant".equals(message.get("role"));
        if (chat.learned()[i]
            && "".equals(message.get("content"))
            && message.get("tool_calls") == null) {
          encoded.note(Note.EMPTY);
        }
      }
      RenderedChat marked = marked();
      if (every && marked != null && !marked.generated().isEmpty()) {
        return List.of(marked);
      }
      if (chat.learned()[0]) {
        encoded.note(Note.GREETING);
      }
      String whole = marked == null ? render(chat.messages().size(), false) : marked.text();
      RenderedChat together = together(whole, encoded);
      return together == null ? apart(encoded) : List.of(together);
    }

    /** The conversation with what the template itself marks; null if that cannot be told. */
    private @Nullable RenderedChat marked() {
      try {
        RenderedChat marked = template.renderWithSpans(request(chat.messages().size(), false));
        rendered += marked.text().length();
        return marked;
      } catch (TextException e) {
        return null;
      }
    }

    /** The whole conversation with its answers, or null if where they stand cannot be told. */
    private @Nullable RenderedChat together(String whole, Encoded encoded) throws BadRow {
      List<Span> spans = new ArrayList<>();
      int kept = kept(whole, chat.messages().size());
      for (int i = 1; i < chat.learned().length; i++) {
        if (chat.learned()[i]) {
          int start = opening(whole, i, encoded);
          if (start >= kept) {
            // This answer and what follows will be cut off, wherever answers begin and end in it.
            spans.add(new Span(start, whole.length()));
            break;
          }
          String through = i + 1 == chat.learned().length ? whole : beginning(i + 1, false);
          if (start < 0
              || through == null
              || !whole.startsWith(through)
              || through.length() < start) {
            return null;
          }
          spans.add(new Span(start, through.length()));
        }
      }
      return new RenderedChat(whole, spans);
    }

    /** One row for each answer, the conversation up to it. */
    private List<RenderedChat> apart(Encoded encoded) throws BadRow {
      List<RenderedChat> rows = new ArrayList<>();
      for (int i = 1; i < chat.learned().length; i++) {
        if (chat.learned()[i]) {
          String text = render(i + 1, false);
          int start = opening(text, i, encoded);
          if (start < 0) {
            throw new BadRow(
                UNCLEAR,
                ("the chat template writes what comes before message %d otherwise once it is"
                     + " answered (some leave the system's message out), so that which tokens the"
                     + " assistant writes cannot be told; put the system's text into the first"
                     + " message, mark answers in the template with {%% generation %%}, or learn"
                     + " everything: --loss all")
                    .formatted(i));
          }
          if (start >= kept(text, i)) {
            // So is every later answer, behind even more.
            for (; i < chat.learned().length; i++) {
              if (chat.learned()[i]) {
                encoded.drop(Encoded.CUT);
              }
            }
            break;
          }
          Span span = new Span(start, text.length());
          rows.add(new RenderedChat(text, List.of(span)));
        }
      }
      if (rows.size() > 1) {
        encoded.note(Note.SPLIT);
      }
      return rows;
    }

    /**
     * How much of a text is not cut off, so that what lies behind need not be rendered to be
     * understood. It is looked for in long conversations alone, where that would take long.
     */
    private int kept(String text, int messages) throws BadRow {
      Tokenizer tokenizer = model.tokenizer();
      if (messages < LONG || tokenizer == null) {
        return Integer.MAX_VALUE;
      }
      try {
        int end = tokenizer.end(text, options.sequenceLength());
        return end < text.length() ? end : Integer.MAX_VALUE;
      } catch (IllegalArgumentException e) {
        throw new BadRow(TEXT, String.valueOf(e.getMessage()));
      }
    }

    /** Where the answer that is message {@code i} begins in a text, or -1. */
    private int opening(String text, int i, Encoded encoded) throws BadRow {
      String asked = beginning(i, true);
      if (asked != null && text.startsWith(asked)) {
        return asked.length();
      }
      String before = beginning(i, false);
      if (before != null && text.startsWith(before)) {
        encoded.note(Note.OPENING);
        return before.length();
      }
      return -1;
    }

    /** The first messages as text, or null if the template refuses them. */
    private @Nullable String beginning(int messages, boolean opening) throws BadRow {
      try {
        return text(messages, opening);
      } catch (TextException e) {
        return null;
      }
    }

    String render(int messages, boolean opening) throws BadRow {
      try {
        return text(messages, opening);
      } catch (TextException e) {
        throw new BadRow(TEMPLATE, String.valueOf(e.getMessage()));
      }
    }

    private String text(int messages, boolean opening) throws TextException, BadRow {
      String text = template.render(request(messages, opening));
      rendered += text.length();
      if (rendered > MAX_RENDERED) {
        throw new BadRow(
            Json.TOO_LARGE,
            "a conversation of %,d messages and %,d characters: to tell its answers apart takes too"
                    .formatted(chat.messages().size(), text.length())
                + " long; split it");
      }
      return text;
    }

    private ChatRequest request(int messages, boolean opening) {
      return new ChatRequest(
          chat.messages().subList(0, messages),
          chat.tools(),
          null,
          opening,
          false,
          variables,
          options.clock());
    }
  }

  // Tokens

  private MaskedTokens tokenize(RenderedChat text, boolean special) throws BadRow {
    Tokenizer tokenizer = model.tokenizer();
    if (tokenizer == null) {
      throw new BadRow(TEXT, "the model has no tokenizer.json; give rows of input_ids and labels");
    }
    try {
      return tokenizer.encode(text, special);
    } catch (IllegalArgumentException e) {
      throw new BadRow(TEXT, String.valueOf(e.getMessage()));
    }
  }

  private void add(Encoded encoded, int[] ids, boolean[] learned) throws BadRow {
    for (int i = 0; i < ids.length; i++) {
      if (ids[i] < 0 || ids[i] >= model.vocabulary()) {
        throw new BadRow(
            VOCABULARY,
            "token %d: expected an id below the vocabulary's size %d, got %d"
                .formatted(i, model.vocabulary(), ids[i]));
      }
    }
    encoded.add(ids, learned, options.sequenceLength());
  }
}
