import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

final class Check {
    private static final String API = "'api-1';q=3;w=60, 'api-2';q=100;w=3600";

    public static void main(String[] arguments) throws IOException {
        try (Socket socket = new Socket("localhost", 6380)) {
            for (int left = 2; left >= 0; left--) {
                String hour = "'api-2';r=" + (97 + left) + ";t=3600 soon";
                look(ask(socket, "user:42", "api"), API, "'api-1';r=" + left + ";t=60 soon, " + hour, null);
            }
            look(ask(socket, "user:42", "api"), API, "'api-1';r=0;t=60 soon", "60 soon");
            look(ask(socket, "user:42", "search"), "'search-1';q=20, 'search-2';q=600;w=60",
                "'search-1';r=19;t=1, 'search-2';r=599;t=60 soon", null);
            look(ask(socket, "ip:10.6.6.6", "api"), null, null, null);
            look(ask(socket, "ip:10.7.7.7", "api"), null, null, null);
            String trial = "'trial-1';r=0;t=60 soon";
            look(ask(socket, "user:42", "trial"), "'trial-1';q=1;w=60", trial, null);
            look(ask(socket, "user:42", "trial"), "'trial-1';q=1;w=60", trial, null);
            String plain = "'default-1';r=1;t=60 soon";
            look(ask(socket, "user:42", "2", "1m"), "'default-1';q=2;w=60", plain, null);
        }
        // Seconds are rounded up, and a window that is not of whole seconds has no `w`.
        List<?> limits = List.of(limit(5, 1500, 0, 1001, 1000), limit(9, 2000, 4, 0, 1), limit(9, 3000, 9, 0, 0));
        String policies = "'p-1';q=5, 'p-2';q=9;w=2, 'p-3';q=9;w=3";
        look(reply(0, "limit", 1001, limits), policies, "'p-1';r=0;t=1", "2");
        look(reply(1, "ok", 0, limits), policies, "'p-1';r=0;t=1, 'p-2';r=4;t=1, 'p-3';r=9", null);
    }

    /** Fails unless these are the fields. What is soon may be as much as two seconds less, for the time that passes. */
    private static void look(List<?> reply, String policy, String state, String retryAfter) {
        Map<String, String> left = new HashMap<>(HeaderFields.of(reply));
        look(left.remove("RateLimit-Policy"), policy);
        look(left.remove("RateLimit"), state);
        look(left.remove("Retry-After"), retryAfter);
        if (!left.isEmpty()) {
            throw new AssertionError(left);
        }
    }

    private static void look(String got, String wanted) {
        if (got == null || wanted == null ? got != wanted : !Pattern.matches(pattern(wanted), got)) {
            throw new AssertionError(got + ", not " + wanted);
        }
    }

    private static String pattern(String wanted) {
        return wanted.replace('\'', '"').replace("3600 soon", "(3600|359[89])").replace("60 soon", "(60|5[89])");
    }

    private static List<?> reply(long allowed, String reason, long retryAfter, List<?> limits) {
        return List.of(bytes("allowed"), allowed, bytes("reason"), bytes(reason), bytes("policy"), bytes("p"),
            bytes("retry_after_ms"), retryAfter, bytes("limits"), limits);
    }

    private static List<?> limit(long limit, long window, long remaining, long retryAfter, long next) {
        return List.of(bytes("limit"), limit, bytes("window_ms"), window, bytes("remaining"), remaining,
            bytes("retry_after_ms"), retryAfter, bytes("next_ms"), next);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** RL.CHECK of these arguments, in full; the reply as Jedis gives it. */
    private static List<?> ask(Socket socket, String... arguments) throws IOException {
        OutputStream output = socket.getOutputStream();
        output.write(bytes("RL.CHECK " + String.join(" ", arguments) + " FULL\r\n"));
        return (List<?>) read(socket.getInputStream());
    }

    private static Object read(InputStream input) throws IOException {
        String line = readLine(input);
        int number = Integer.parseInt(line.substring(1));
        switch (line.charAt(0)) {
            case ':':
                return (long) number;
            case '$':
                byte[] text = input.readNBytes(number);
                readLine(input);
                return text;
            case '*':
                List<Object> list = new ArrayList<>();
                while (list.size() < number) {
                    list.add(read(input));
                }
                return list;
            default:
                throw new IOException(line);
        }
    }

    private static String readLine(InputStream input) throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        for (int next = input.read(); next != '\n'; next = input.read()) {
            if (next < 0) {
                throw new IOException("closed");
            }
            line.write(next);
        }
        return line.toString(StandardCharsets.UTF_8).strip();
    }
}
