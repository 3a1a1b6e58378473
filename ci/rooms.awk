# The rules of ci/rooms: reads the table of docs/house.md, then every file, and prints the findings. POSIX awk.
BEGIN {
    databases = "rusqlite|libsqlite3[_-]sys|sqlite|sqlite3|postgres|tokio[_-]postgres|postgres[_-]types|sqlx|sqlx[_-]core|diesel|sea[_-]orm|sea[_-]query|mysql|mysql[_-]async|libsql|limbo|turso|duckdb|redb|sled|rocksdb|heed|fjall"
    database = "(^|[^A-Za-z0-9_.])(r#)?(" databases ")(::|[ ;,}]|$)"
    # Text that goes on after a beginning is SQL by more than its first word.
    more_sql = "(SELECT .* FROM [a-z{]|INSERT (OR [A-Z]+ )?INTO [a-z{]|UPDATE [a-z_{}]+ SET [a-z{]|DELETE FROM [a-z{])"
    sql = "(SELECT [^ ]|INSERT (OR [A-Z]+ )?INTO |REPLACE INTO |UPDATE [a-z_{}]+ SET |DELETE FROM |CREATE (UNIQUE |TEMP )?(TABLE|INDEX|VIEW|TRIGGER) |ALTER TABLE |PRAGMA |WITH [a-z_]+ AS \\()"
    # A call that opens a path as it is there, and waits for ever where that is a pipe. One with `create_new` waits for nobody.
    opening = "(^|[^A-Za-z0-9_])(fs::(read|read_to_string|write|copy)|File::(open|create))([^A-Za-z0-9_:]|$)"
    more_opening = "(OpenOptions::new|File::options)\\(\\).*[.]open\\("
    # Words for a thing that only another line names.
    pronouns = "(What|Who|Whose|Whoever|Whatever|Where|Wherever|Something"
    more = "It|Its|One|Nothing|Everything|Those|That|This|Such|They|The same|As|So many|None|Else"
    comment_pronoun = "^ *// " pronouns "|" more ")([ ,.:;]|$)"
    doc_pronoun = "^ *//[/!] " pronouns "|" more "|Nobody)([ ,.:;]|$)"
}

function fail(file, line, text) {
    if (only == "" || file == only || index(file, only "/") == 1) {
        print file (line ? ":" line : "") ": " text
        findings++
    }
}

# The room of a file: the longest row of the table that it stands under.
function room_of(file,   path) {
    if (file in known_room) return known_room[file]
    path = file
    while (path != "" && !(path in rooms)) {
        if ((path ".rs") in rooms) { path = path ".rs"; break }
        if (sub(/\.rs$/, "", path)) continue
        if (!sub(/\/[^\/]*$/, "", path)) path = ""
    }
    return known_room[file] = path
}

# Finds the layer of a file, the longest row that it stands under: its place is in `layered`.
function find_layer(file,   path) {
    for (path = file; path != "" && !(path in layers); )
        if (!sub(/\/[^\/]*$/, "", path)) path = ""
    return layered = path
}

# A file without its last part, where that is the name of a kind of system.
function face(file) {
    if (!sub(/\/(unix|posix|linux|ps|windows)(\.rs|\/.*)$/, "", file)) file = file "/"
    return file
}

# A line without comments and without what stands in strings; `delimiter` is the end of a string that
# goes on in the next line.
function code_of(line,   out, token, at) {
    out = ""
    for (;;) {
        if (delimiter == "\"") {
            if (!match(line, /^([^"\\]|\\.)*"/)) return out
            line = substr(line, RLENGTH + 1)
        } else if (delimiter != "") {
            at = index(line, delimiter)
            if (!at) return out
            line = substr(line, at + length(delimiter))
        }
        delimiter = ""
        if (!match(line, /r#*"|"|\/\/|'(\\.|[^'\\])'/)) return out line
        token = substr(line, RSTART, RLENGTH)
        out = out substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        if (token == "//") return out
        if (token ~ /^'/) continue
        delimiter = token
        sub(/^r/, "", delimiter)
        if (length(delimiter) > 1) delimiter = "\"" substr(delimiter, 1, length(delimiter) - 1)
    }
}

# The names that one `use` brings in: prefix a, tree `b::{c, d as e}` -> c from a::b::c, e from a::b::d.
function expand(prefix, tree, kind,   depth, i, c, start, head, name) {
    gsub(/^[ \t]+|[ \t]+$/, "", tree)
    if (tree == "") return
    i = index(tree, "{")
    if (i) {
        head = substr(tree, 1, i - 1)
        sub(/::[ \t]*$/, "", head)
        if (head != "") prefix = prefix == "" ? head : prefix "::" head
        tree = substr(tree, i + 1)
        sub(/[}][ \t]*$/, "", tree)
        start = 1
        for (i = 1; i <= length(tree); i++) {
            c = substr(tree, i, 1)
            if (c == "{") depth++
            else if (c == "}") depth--
            else if (c == "," && !depth) {
                expand(prefix, substr(tree, start, i - start), kind)
                start = i + 1
            }
        }
        expand(prefix, substr(tree, start), kind)
        return
    }
    name = tree
    if (match(tree, /[ \t]+as[ \t]+/)) {
        name = substr(tree, RSTART + RLENGTH)
        tree = substr(tree, 1, RSTART - 1)
    }
    if (tree == "self") tree = prefix
    else if (prefix != "") tree = prefix "::" tree
    sub(/^.*::/, "", name)
    if (name == "self") { name = prefix; sub(/^.*::/, "", name) }
    if (name == "*") {
        sub(/::\*$/, "", tree)
        globs[module] = globs[module] " " tree
        note(tree, kind)
        return
    }
    alias[module, name] = tree
    if (kind == "re-export") exported[module] = exported[module] " " name
    note(tree, kind)
}

# Notes that the present file names a path; where it leads is known once every file was read.
function note(path, kind) {
    noted++
    note_file[noted] = file
    note_line[noted] = use_line
    note_module[noted] = module
    note_path[noted] = path
    note_kind[noted] = kind
}

function begin_file(   path) {
    file = FILENAME
    files[++file_count] = file
    path = file
    sub(/^.*src\//, "", path)
    sub(/\.rs$/, "", path)
    sub(/(^|\/)(mod|lib|main)$/, "", path)
    gsub(/\//, "::", path)
    base = path == "" ? "crate" : "crate::" path
    # `runlet::` is this crate to the program.
    is_program = file ~ /\/main\.rs$/
    if (is_program) base = "program"
    file_of[base] = file
    module = base
    depth = 0
    delimiter = ""
    statement = ""
    test_pending = 0
    test_indent = -1
}

# Follows a path from a module; the file that it leads to, or "" for other crates.
function lead(from, path, hops,   parts, n, i, current, next_path, rest, j, k, g, list, found) {
    if (hops > 20) return ""
    n = split(path, parts, "::")
    i = 1
    if (parts[1] == "crate" || (parts[1] == "runlet" && from == "program")) { current = "crate"; i = 2 }
    else if (parts[1] == "self") { current = from; i = 2 }
    else if (parts[1] == "super") {
        current = from
        while (parts[i] == "super") {
            if (!sub(/::[^:]*$/, "", current)) return ""
            i++
        }
    } else {
        current = from
        if (!((from "::" parts[1]) in file_of) && !((from, parts[1]) in alias)) return ""
        # A `use` of the same name, such as `use log;`, leads nowhere; one that another file follows is that of a
        # macro, which stands here.
        if (alias[from, parts[1]] == path) return hops ? file_of[from] : ""
    }
    for (; i <= n; i++) {
        if ((current "::" parts[i]) in file_of) { current = current "::" parts[i]; continue }
        rest = ""
        for (j = i + 1; j <= n; j++) rest = rest "::" parts[j]
        if ((current, parts[i]) in alias) {
            found = lead(current, alias[current, parts[i]] rest, hops + 1)
            return found
        }
        k = split(globs[current], list, " ")
        for (g = 1; g <= k; g++) {
            next_path = target_module(current, list[g])
            if (next_path != "" && ((next_path, parts[i]) in defined))
                return file_of[next_path]
        }
        break
    }
    return file_of[current]
}

# The module that a glob import names, when it is one of this crate.
function target_module(from, path) {
    sub(/^self::/, from "::", path)
    while (path ~ /^super(::|$)/) {
        sub(/::[^:]*$/, "", from)
        path = from substr(path, 6)
    }
    if (!(path in file_of) && ((from "::" path) in file_of)) path = from "::" path
    return path in file_of ? path : ""
}

# ---- the table
FILENAME == house && /^\| *`(tests|ci)\// {
    split($0, cells, "|")
    gsub(/[ `]/, "", cells[2])
    opens[cells[2]] = FNR
    next
}
FILENAME == house && /^\| *`[A-Z][A-Za-z0-9]*` *\|/ {
    split($0, cells, "|")
    gsub(/[ `]/, "", cells[2])
    twice[cells[2]] = FNR
    next
}
FILENAME == house && /^\| *`src\/[^|]*\| *`(fs|File)[:`]/ {
    split($0, cells, "|")
    gsub(/[ `]/, "", cells[2])
    gsub(/^ *`|` *$/, "", cells[3])
    calm_file[++calm_count] = cells[2]
    calm_call[calm_count] = cells[3]
    calm_line[calm_count] = FNR
    next
}
FILENAME == house && /^\| *Layer *\|/ {
    layer_table++
    next
}
FILENAME == house && /^\| *[0-9]+ *\| *`src\// {
    split($0, cells, "|")
    gsub(/[ `]/, "", cells[3])
    layers[cells[3]] = FNR
    depth_of[cells[3]] = cells[2] + 0
    table_of[cells[3]] = layer_table
    next
}
FILENAME == house {
    if ($0 !~ /^\| *`src/) next
    split($0, cells, "|")
    room = cells[2]
    gsub(/[ `]/, "", room)
    rooms[room] = FNR
    room_list[++room_count] = room
    uses = cells[4]
    while (match(uses, /`[^`]*`/)) {
        use = substr(uses, RSTART + 1, RLENGTH - 2)
        uses = substr(uses, RSTART + RLENGTH)
        may[room, use] = 1
        named[++named_count] = use
        named_line[named_count] = FNR
        named_room[named_count] = room
    }
    next
}

FILENAME == "Cargo.toml" {
    if ($0 ~ ("package *= *\"(" databases ")\"")) fail(FILENAME, FNR, "a database library gets another name: ci/rooms knows it by its own, so use that")
    next
}

# Tests and tools drive the program from outside: of their imports only the database library counts.
FILENAME !~ /^src\// {
    if (FNR == 1) { file = FILENAME; delimiter = "" }
    if (code_of($0) ~ database) {
        if (!(file in opens) && !told[file]++)
            fail(file, FNR, "a database library is named in a test: call `Server::database` of tests/integration/server.rs, or give the file a row, with the reason, in the table of tests in " house)
        opened[file] = 1
    }
    next
}

FNR == 1 { begin_file() }

# ---- the files
{
    is_comment = delimiter == "" && $0 ~ /^ *\/\//
    is_doc = is_comment && $0 ~ /^ *\/\/[\/!]/
    if (is_doc && !was_doc && $0 ~ doc_pronoun)
        fail(file, FNR, "documentation begins with a pronoun: begin it with the noun of the thing that it stands above")
    if (is_comment && !is_doc && !was_comment && $0 ~ comment_pronoun)
        fail(file, FNR, "a comment begins with a pronoun: begin it with the noun of the thing that it is about")
    was_doc = is_doc
    was_comment = is_comment
    # A text may begin in the line after its quote.
    opens_text = delimiter != "" && text_begins
    begins = $0 ~ ("^[ \t]*" sql) && opens_text || $0 ~ ("\"[ \t]*" sql) || $0 ~ more_sql
    code = code_of($0)
    text_begins = delimiter != "" && $0 ~ /"[ \t]*\\?$/
    in_store = file ~ /^src\/server\/store(\/|\.rs)/
    if (begins && $0 !~ /^[ \t]*\/\// && !in_store && !told_sql[file]++)
        fail(file, FNR, "SQL stands outside src/server/store: write it as a function of src/server/store/tables (or of store/read, for a view) and call that")
    if (code ~ database) {
        if (!in_store && !told[file]++)
            fail(file, FNR, "a database library is named outside src/server/store: write the SQL as a function of src/server/store/tables (or of store/read, for a view) and call that")
        if (in_store && code ~ /^ *pub(\([a-z: ]*\))? *(use|extern crate|type) /)
            fail(file, FNR, "a database library is made public by the store: give other rooms a type of the store, such as `View`, and keep the library inside")
    }
    if (code ~ /#!?\[ *path *=|(^|[^a-z_])include!/ || code ~ /cfg_attr\(.*path *=/)
        fail(file, FNR, "`#[path]` and `include!` take a file into a room that it does not stand in: move the file there, and use `mod`")
    if (code ~ /^[ \t]*$/) next
    match(code, /^ */)
    indent = RLENGTH

    if (test_indent >= 0) {
        if (indent == test_indent && code ~ /^ *[}]/) test_indent = -1
        next
    }
    if (code ~ /^ *#\[cfg\((all\()?test/) { test_pending = 1; next }
    if (test_pending) {
        if (code ~ /^ *#\[/) next
        test_pending = 0
        if (match(code, /mod [a-z0-9_]+;/)) {
            path = module "::" substr(code, RSTART + 4, RLENGTH - 5)
            test_module[path] = 1
        } else if (code !~ /[;,] *$/ && code !~ /[{].*[}] *$/) test_indent = indent
        next
    }

    rest = $0
    gsub(/(fs::read|fs::read_to_string|File::open)\("\/(proc|sys|etc)\/[^"]*"\)/, "", rest)
    if (file ~ /^src\/(executor|agent)(\/|\.rs)/ &&
        (code ~ opening && rest ~ opening || code ~ more_opening && code !~ /create_new\(true\)/)) {
        for (i = 1; i <= calm_count; i++)
            if (calm_file[i] == file && index($0, calm_call[i])) break
        if (i <= calm_count) calm_used[i] = 1
        else {
            open_file[++opens_count] = file
            open_line[opens_count] = FNR
        }
    }

    while (depth && indent <= inline_indent[depth] && code ~ /^ *[}]/) {
        depth--
        module = depth ? inline_module[depth] : base
    }
    if (code ~ /^ *(pub(\([a-z: ]*\))? )?mod [a-z0-9_]+ *[{] *$/) {
        path = code
        sub(/^.*mod /, "", path)
        sub(/ *[{].*$/, "", path)
        depth++
        module = module "::" path
        inline_module[depth] = module
        inline_indent[depth] = indent
        file_of[module] = file
        next
    }
    if (code ~ /^ *(pub(\([a-z: ]*\))? )?mod [a-z0-9_]+;/) next

    if (statement != "" || code ~ /^ *(pub(\([a-z: ]*\))? )?use /) {
        if (statement == "") {
            use_line = FNR
            kind = code ~ /^ *pub/ ? "re-export" : "use"
            sub(/^ *(pub(\([a-z: ]*\))? )?use /, "", code)
        }
        statement = statement " " code
        if (code ~ /;/) {
            sub(/;.*$/, "", statement)
            sub(/^ *::/, "", statement)
            expand("", statement, kind)
            statement = ""
        }
        next
    }
    if (match(code, /(fn|struct|enum|type|const|static|trait|union) [A-Za-z_][A-Za-z0-9_]*/)) {
        path = substr(code, RSTART, RLENGTH)
        sub(/^[a-z]+ /, "", path)
        defined[module, path] = 1
        if (code ~ /^ *pub(\([a-z:_ ]*\))? +(struct|enum|type|trait|union) / && !((path, file) in type_at)) {
            if (!(path in type_files)) type_list[++type_count] = path
            type_files[path] = type_files[path] " " file
            type_at[path, file] = FNR
        }
    }
    # A method may be written in any file of the crate, and needs no import where it is called.
    if (match(code, /^impl(<[^>]*>)? [A-Za-z_][A-Za-z0-9_:]*/) && code !~ / for /) {
        path = substr(code, RSTART, RLENGTH)
        sub(/^.* /, "", path)
        impl_file[++impls] = file
        impl_line[impls] = FNR
        impl_module[impls] = module
        impl_path[impls] = path
    }
    use_line = FNR
    rest = code
    gsub(/pub\((crate|super|in [a-z_:]+)\)/, "", rest)
    while (match(rest, /[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)+/)) {
        path = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        # A path that begins with an item leads where its `use` leads; with a module, to what is in it.
        if (path ~ /^[a-z]/ && path !~ /^(std|core|serde_json|serde|self::[A-Z])/) note(path, "code")
    }
    text[module] = text[module] "\n" code
}

# ---- what it comes to
function import(from, to, line, path, kind,   a, b) {
    a = room_of(from)
    b = room_of(to)
    if (a != b && !((a, b) in used)) {
        used[a, b] = 1
        use_list[a] = use_list[a] " " b
    }
    if (a != "" && b != "" && a != b && !((a, b) in may) && !((from, b) in told)) {
        told[from, b] = 1
        fail(from, line, "`" a "` may not use `" b "` (" path "): move what it needs into a room that both may use, or have the caller pass it in; the table of " house " changes only with the house")
    }
    a = find_layer(from)
    b = find_layer(to)
    if (a != "" && b != "" && a != b && table_of[a] == table_of[b] && depth_of[a] >= depth_of[b] && !((from, b) in told)) {
        told[from, b] = 1
        fail(from, line, "`" a "` may not use `" b "` (" path "), which is " (depth_of[a] == depth_of[b] ? "beside" : "above") " it: layers use those below them, see the table of layers in " house)
    }
    lived[a]
    lived[b]
    if (kind == "re-export" || (from, to) in line_of) return
    line_of[from, to] = line
    out[from] = out[from] " " to
    degree[from]++
}

# Numbers files by reachability (Tarjan): files of one circle get the same `circle`.
function visit(f,   list, n, i, t) {
    order[f] = lowest[f] = ++counter
    stack[++top] = f
    stacked[f] = 1
    n = split(out[f], list, " ")
    for (i = 1; i <= n; i++) {
        t = list[i]
        if (!(t in order)) {
            visit(t)
            if (lowest[t] < lowest[f]) lowest[f] = lowest[t]
        } else if (t in stacked && order[t] < lowest[f]) lowest[f] = order[t]
    }
    if (lowest[f] != order[f]) return
    circles++
    size[circles] = 0
    do {
        t = stack[top--]
        delete stacked[t]
        circle[t] = circles
        size[circles]++
        if (only == "" || t == only || index(t, only "/") == 1) touched[circles] = 1
        if (!(circles in least) || t < least[circles]) least[circles] = t
    } while (t != f)
}

# The shortest way from a file back to itself.
function show(start,   queue, head, tail, came, f, list, n, i, t, way) {
    queue[tail = 1] = start
    for (head = 1; head <= tail; head++) {
        f = queue[head]
        n = split(out[f], list, " ")
        for (i = 1; i <= n; i++) {
            t = list[i]
            if (t == start) {
                way = f ":" line_of[f, t] " -> " start
                while (f != start) { way = came[f] ":" line_of[came[f], f] " -> " way; f = came[f] }
                return way
            }
            if (circle[t] == circle[start] && !(t in came)) { came[t] = f; queue[++tail] = t }
        }
    }
    return start
}

END {
    for (f in opens)
        if (!(f in opened) && only == "") fail(house, opens[f], "`" f "` names no database library (any more): take its row out")
    for (i = 1; i <= named_count; i++)
        if ((named[i] in rooms) && rooms[named[i]] < named_line[i])
            fail(house, named_line[i], "`" named[i] "` stands above the room that uses it: rows stand in the order of uses, and uses go downwards")
        else if (!(named[i] in rooms)) fail(house, named_line[i], "`" named[i] "` is no room: give it a row, or name the room that it is in")
    # A module in a module of tests is one of tests, too.
    for (path in file_of) {
        prefix = path
        do if (prefix in test_module) test_file[file_of[path]] = 1
        while (sub(/::[^:]*$/, "", prefix))
    }
    for (i = 1; i <= file_count; i++) {
        room = room_of(files[i])
        if (room == "") fail(files[i], 0, "the file is in no room: move it into one, or give its room a row in the table of " house)
        lived[room] = 1
    }
    for (i = 1; i <= room_count; i++)
        if (!(room_list[i] in lived)) fail(house, rooms[room_list[i]], "the room `" room_list[i] "` has no file: take its row out, or correct its path")
    for (i = 1; i <= opens_count; i++)
        if (!(open_file[i] in test_file))
            fail(open_file[i], open_line[i], "a file is opened as it is there: whoever opens a pipe that a step has put into its place waits for ever, so use `system::opening`, or give the call a row, with the reason, in the table of calls in " house)
    for (i = 1; i <= calm_count; i++)
        if (!(i in calm_used) && only == "") fail(house, calm_line[i], "no line of `" calm_file[i] "` has `" calm_call[i] "` and needs the row (any more): take it out")
    for (i = 1; i <= noted; i++) {
        if (note_file[i] in test_file) continue
        to = lead(note_module[i], note_path[i], 0)
        if (to != "" && to != note_file[i]) import(note_file[i], to, note_line[i], note_path[i], note_kind[i])
    }
    for (i = 1; i <= type_count; i++) {
        n = split(type_files[type_list[i]], list, " ")
        other = ""
        for (j = 1; j <= n; j++) {
            if (list[j] in test_file) continue
            # Files of two kinds of system have one type.
            if (other != "" && face(list[j]) == face(other)) continue
            if (other != "") shared[type_list[i]] = 1
            if (other != "" && !(type_list[i] in twice))
                fail(list[j], type_at[type_list[i], list[j]], "`" type_list[i] "` is the name of another type in " other " as well: one word, one thing, so give one of them a name of its own (or, where both are one thing, a row with the reason in the table of names of " house ")")
            other = list[j]
        }
    }
    for (name in twice)
        if (!(name in shared) && only == "") fail(house, twice[name], "`" name "` is the name of one type (any more): take its row out")
    # A name that is re-exported and used in the same file is imported as well.
    for (from in exported) {
        n = split(exported[from], list, " ")
        for (i = 1; i <= n; i++)
            if (text[from] ~ ("(^|[^A-Za-z0-9_:.])" list[i] "([^A-Za-z0-9_]|$)")) {
                to = lead(from, alias[from, list[i]], 0)
                if (to != "" && to != file_of[from] && !(file_of[from] in test_file)) import(file_of[from], to, 0, alias[from, list[i]], "use")
            }
    }
    for (i = 1; i <= impls; i++) {
        if (impl_file[i] in test_file) continue
        to = lead(impl_module[i], impl_path[i], 0)
        if (to != "" && room_of(to) != room_of(impl_file[i]))
            fail(impl_file[i], impl_line[i], "methods of `" impl_path[i] "` stand outside its room (`" room_of(to) "`): other files call them without an import; write a function, or move them there")
    }
    if (only == "--uses") {
        for (i = 1; i <= room_count; i++) print room_list[i] ":" use_list[room_list[i]]
        exit 0
    }
    for (i = 1; i <= file_count; i++) if (!(files[i] in order)) visit(files[i])
    for (i = 1; i <= circles; i++)
        if (size[i] > 1 && touched[i]) {
            print least[i] ": a circle of " size[i] " files: " show(least[i]) ": move what both sides need into a file that imports neither, or pass it in"
            findings++
            if (size[i] > 2)
                for (f = 1; f <= file_count; f++) if (circle[files[f]] == i) print "    in the circle: " files[f]
        }
    for (a in layers)
        if (only == "" && !(a in lived)) fail(house, layers[a], "the layer `" a "` uses nothing and nobody uses it (any more): take its row out, or correct its path")
    for (i = 1; i <= named_count; i++)
        if (only == "" && (named[i] in rooms) && !((named_room[i], named[i]) in used))
            fail(house, named_line[i], "no file of `" named_room[i] "` uses `" named[i] "` (any more): take it out of the row")
    if (findings) exit 1
    print "rooms: " (only == "" ? file_count " files in " room_count " rooms keep" : only " keeps") " to " house
}
